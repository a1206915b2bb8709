"""What may have been under the text: from the pixels around it, or by an inpainting pipeline of diffusers.

Both leave every pixel outside the mask as it was, bit for bit; a change there is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import linalg

Fill = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

RING = 3  # pixels around a hole that it is filled from; the equation reaches two
PROMPT = "No text, clean background"  # of "This X-Ray Does Not Exist"


def biharmonic(pixels: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """Holes filled by the biharmonic equation from their rim, with the grain of the pixels around them.

    Args:
        pixels: uint8, (H, W) or (H, W, 3).
        mask: bool (H, W), what to fill.
        seed: of the grain.

    Raises:
        ValueError: nothing is left to fill from.

    Source: as `skimage.restoration.inpaint_biharmonic` (Damelin and Hoang 2018), with reflecting edges of the film.
    """
    if mask.all():
        raise ValueError("expected some pixels outside the text, got a mask of the whole film; leave the film out")
    filled = pixels.copy()
    planes = filled[:, :, None] if filled.ndim == 2 else filled
    grain = np.random.default_rng(seed).standard_normal(mask.shape)
    numbers, _ = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=RING))
    for place in ndimage.find_objects(numbers):
        hole = mask[place]
        for channel in range(planes.shape[2]):
            crop = planes[(*place, channel)]
            values = _solve(crop.astype(np.float64), hole)
            noise = _grain_level(crop.astype(np.float64), ~hole) * grain[place][hole]
            crop[hole] = np.clip(np.rint(values + noise), 0, 255).astype(np.uint8)
    return _checked(pixels, filled, mask)


def _solve(crop: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Values of the hole whose squared Laplacian is 0, (number of hole pixels,)."""
    height, width = crop.shape
    along = [sparse.diags([np.ones(n - 1), np.ones(n - 1)], [-1, 1], shape=(n, n)) for n in (height, width)]
    neighbours = sparse.kron(along[0], sparse.eye(width)) + sparse.kron(sparse.eye(height), along[1])
    laplace = neighbours - sparse.diags(np.asarray(neighbours.sum(axis=1)).ravel())
    unknown = hole.ravel()
    rows = sparse.csr_matrix(laplace @ laplace)[unknown]
    known = rows[:, ~unknown] @ crop.ravel()[~unknown]
    return np.asarray(linalg.spsolve(sparse.csc_matrix(rows[:, unknown]), -known)).reshape(-1)


def _grain_level(values: np.ndarray, known: np.ndarray) -> float:
    """Standard deviation of the grain around a hole, by a difference of Laplacians that edges do not excite.

    Source: Immerkaer 1996, by the median in place of the mean.
    """
    difference = ndimage.convolve(values, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]))
    away = ndimage.binary_erosion(known, np.ones((3, 3)), border_value=1)
    return float(np.median(np.abs(difference[away]))) / (6 * 0.6745) if away.any() else 0.0


class Diffusion:
    """Any inpainting pipeline of diffusers. The whole film is drawn at `size`, and pasted where the mask is.

    Source: prompt, 50 steps and guidance 7.5 of "This X-Ray Does Not Exist" (the defaults of Stable Diffusion 2
    inpainting), which saved the whole drawn film.
    """

    def __init__(
        self,
        model: str,
        *,
        prompt: str = PROMPT,
        steps: int = 50,
        guidance_scale: float = 7.5,
        size: int = 512,
        device: str | None = None,
    ) -> None:
        import torch
        from diffusers import AutoPipelineForInpainting

        from synthchex.models.encoders import loading, pick_device

        device = pick_device(device)
        with loading(model):
            pipeline = AutoPipelineForInpainting.from_pretrained(
                model, dtype=torch.float16 if device.startswith("cuda") else torch.float32
            )
        self.pipeline: Any = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.call = {"prompt": prompt, "num_inference_steps": steps, "guidance_scale": guidance_scale}
        self.size, self.device = size, device

    def __call__(self, pixels: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
        """As `biharmonic`; grey films stay grey."""
        import torch
        from PIL import Image

        shape = self.size, self.size
        film, hole = Image.fromarray(pixels), Image.fromarray(mask.astype(np.uint8) * 255)
        drawn = self.pipeline(
            **self.call,
            image=film.convert("RGB").resize(shape, Image.Resampling.LANCZOS),
            mask_image=hole.resize(shape, Image.Resampling.NEAREST),
            width=self.size,
            height=self.size,
            generator=torch.Generator(self.device).manual_seed(seed),
        ).images[0]
        whole = np.asarray(drawn.resize(film.size, Image.Resampling.LANCZOS).convert(film.mode))
        filled = pixels.copy()
        filled[mask] = whole[mask]
        return _checked(pixels, filled, mask)


def _checked(pixels: np.ndarray, filled: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The filled film, after a look at every pixel outside the mask."""
    if filled.shape != pixels.shape or not np.array_equal(filled[~mask], pixels[~mask]):
        raise AssertionError("pixels outside the mask changed")
    return filled
