"""Pictures of bad generators, for the judge: denoiser checkpoints of the first minutes, and untrained ones.

    python embedded/failures.py --out src/synthchex/assets/phantom/generator

Needs the numbered denoisers that `train_generator.py unet` keeps in the cache. Checkpoints alternate between the
judge's training and its test, so that it is measured on generators it never saw.
"""

import argparse
from pathlib import Path

import common
import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

from synthchex import phantom

POOR_UNTIL = 350
HOPELESS_UNTIL = 110


def main() -> None:
    """Sample every early checkpoint once."""
    args = _arguments()
    torch.set_num_threads(1)
    folders = sorted((common.CACHE / "unets").iterdir())
    early = [folder for folder in folders if int(folder.name) <= POOR_UNTIL]
    untrained = {"000000": None, "000001": None}
    for name, folder in {**untrained, **{folder.name: folder for folder in early}}.items():
        path = common.CACHE / "failures" / f"{name}.npy"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            np.save(path, sample(args.out, folder, args.count, seed=100 + int(name)))


def sample(pipeline: Path, unet: Path | None, count: int, *, seed: int, guidance: float = 2.0) -> np.ndarray:
    """Films of the pipeline with another denoiser (None: untrained), uint8 (N, 64, 64)."""
    torch.manual_seed(seed)
    model = StableDiffusionPipeline.from_pretrained(pipeline, dtype=torch.float32, safety_checker=None)
    if unet is None:
        model.unet = UNet2DConditionModel.from_config(model.unet.config)
    else:
        model.unet = UNet2DConditionModel.from_pretrained(unet, dtype=torch.float32)
    model.set_progress_bar_config(disable=True)
    prompts, _ = phantom.write_reports(count, seed=seed)
    films = []
    for first in range(0, count, 64):
        part = model(
            prompts[first : first + 64],
            num_inference_steps=15,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + first),
            output_type="np",
        )
        films.append(np.round(part.images[..., 0] * 255).astype(np.uint8))
    return np.concatenate(films)


def load(*, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Poor films (half-trained generator) and hopeless ones (noise), of every other checkpoint."""
    paths = sorted((common.CACHE / "failures").glob("*.npy"))
    chosen = [path for place, path in enumerate(paths) if (place % 2 == 0) == train]
    poor = [np.load(path) for path in chosen if int(path.stem) > HOPELESS_UNTIL]
    hopeless = [np.load(path) for path in chosen if int(path.stem) <= HOPELESS_UNTIL]
    nothing = np.zeros((0, 64, 64), np.uint8)
    return np.concatenate([nothing, *poor]), np.concatenate([nothing, *hopeless])


@torch.no_grad()
def reconstruct(pipeline: Path, films: np.ndarray) -> np.ndarray:
    """Films as the autoencoder gives them back."""
    vae = AutoencoderKL.from_pretrained(pipeline / "vae", dtype=torch.float32).eval()
    parts = common.to_picture(films).split(128)
    return np.concatenate([common.to_bytes(vae.decode(vae.encode(part).latent_dist.mean).sample) for part in parts])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
