"""Near-copies of real films, made on purpose to see which of them the gate catches.

Each kind is what a careless pipeline, or somebody who hides a copy, does to a film: `KINDS` maps its name to a function
of pixels (uint8, (H, W) grey) and a generator. A round trip through a generator's autoencoder is made by `round_trip`.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from synthchex.extras import require

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def exact(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same pixels, as another file."""
    return film.copy()


def jpeg(quality: int) -> Change:
    """Through JPEG."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(film).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return change


def brightness(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gain 0.8 to 1.2 and an offset of up to 20 grey levels, clipped."""
    return _levels(film * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20))


def gamma(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey levels to the power 0.6 to 1.7."""
    return _levels(255 * (film / 255) ** rng.uniform(0.6, 1.7))


def crop(share: float) -> Change:
    """Without `share` of each side, at a random place."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = [round(side * (1 - share)) for side in film.shape]
        top, left = (int(rng.integers(0, side - kept + 1)) for side, kept in zip(film.shape, size, strict=True))
        return film[top : top + size[0], left : left + size[1]]

    return change


def square(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The centre square, as generators are trained on."""
    side = min(film.shape)
    top, left = (film.shape[0] - side) // 2, (film.shape[1] - side) // 2
    return film[top : top + side, left : left + side]


def padded(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """On a black square."""
    side = max(film.shape)
    out = np.zeros((side, side), np.uint8)
    top, left = (side - film.shape[0]) // 2, (side - film.shape[1]) // 2
    out[top : top + film.shape[0], left : left + film.shape[1]] = film
    return out


def resized(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Squashed to 256 x 256."""
    return np.asarray(Image.fromarray(film).resize((256, 256), Image.Resampling.BICUBIC))


def mirrored(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged."""
    return film[:, ::-1]


def negative(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black and white exchanged, as a MONOCHROME1 film read wrongly."""
    return 255 - film


def noise(deviation: float) -> Change:
    """White noise, in shares of full scale."""
    return lambda film, rng: _levels(film + 255 * deviation * rng.standard_normal(film.shape, np.float32))


def blur(share: float) -> Change:
    """Gaussian blur, sigma as a share of the width."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(share * film.shape[1])))

    return change


def rotation(degrees: float) -> Change:
    """Turned one way or the other, black where nothing was."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = degrees * rng.choice([-1.0, 1.0])
        return np.asarray(Image.fromarray(film).rotate(angle, Image.Resampling.BICUBIC))

    return change


def together(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cropped by 5 %, turned by 3 degrees, brighter or darker, noisy, and through JPEG at once."""
    for change in (crop(0.05), rotation(3), brightness, noise(0.03), jpeg(75)):
        film = change(film, rng)
    return film


KINDS: dict[str, Change] = {
    "exact": exact,
    "jpeg 75": jpeg(75),
    "jpeg 30": jpeg(30),
    "brightness": brightness,
    "crop 5 %": crop(0.05),
    "gamma": gamma,
    "crop 10 %": crop(0.10),
    "crop 15 %": crop(0.15),
    "crop 20 %": crop(0.20),
    "centre square": square,
    "padded to a square": padded,
    "squashed to 256": resized,
    "mirrored": mirrored,
    "negative": negative,
    "noise 0.05": noise(0.05),
    "noise 0.10": noise(0.10),
    "blur 1 %": blur(0.01),
    "rotation 3": rotation(3),
    "rotation 8": rotation(8),
    "several at once": together,
}
ROUND_TRIP = "autoencoder round trip"
# Those of which at least 99 % must be caught, or the gate is not fit for its task.
NEEDED = ("exact", "jpeg 75", "brightness", "crop 5 %")


def round_trip(model: str, *, device: str | None = None) -> Change:
    """Through the autoencoder of a diffusers pipeline (Hub id, or folder), at the size it was trained at.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: nothing there has an autoencoder.
    """
    import torch

    from synthchex.models.encoders import loading, pick_device

    diffusers = require("diffusers", extra="generate")
    try:
        with loading(model):
            coder = diffusers.AutoencoderKL.from_pretrained(model, subfolder="vae").to(pick_device(device)).eval()
    except OSError as error:
        raise ValueError(
            f"expected a pipeline with an autoencoder, got {model}: {str(error).splitlines()[0]}"
        ) from error
    size, channels = int(coder.config.sample_size), int(coder.config.in_channels)

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        small = np.array(Image.fromarray(film).resize((size, size), Image.Resampling.LANCZOS))
        given = torch.from_numpy(small).to(coder.device, coder.dtype)[None, None] / 127.5 - 1
        with torch.inference_mode():
            back = coder.decode(coder.encode(given.expand(1, channels, -1, -1)).latent_dist.mode()).sample
        return _levels((back[0].mean(dim=0).float().cpu().numpy() + 1) * 127.5)

    return change


def _levels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
