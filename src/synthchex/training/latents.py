"""Films and prompts to what the denoiser is trained on, computed once and kept on disk under what they are made of.

`<cache>/<key>/block-<hash>.safetensors` holds the tensors of some films or prompts as "<content hash>.<name>". The key
is a hash of the network's weights and of what happens before it, so nothing stale is ever read. Blocks are written
whole and claimed one by one by any number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import images, records, shards
from synthchex.training import families
from synthchex.training.films import Side
from synthchex.training.objectives import Draw
from synthchex.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

BLOCK = 64  # films or prompts per file


class Store:
    """Tensors of things by their content hash, read where they lie."""

    def __init__(self, cache: Path, key: str) -> None:
        self.folder = cache / key
        self.locks = self.folder / ".locks"
        self.locks.mkdir(parents=True, exist_ok=True)
        self.blocks: dict[Path, Any] = {}
        self.places: dict[str, tuple[Path, list[str]]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in the blocks that are there."""
        from safetensors import safe_open

        for path in sorted(set(self.folder.glob("block-*.safetensors")) - set(self.blocks)):
            self.blocks[path] = safe_open(path, framework="pt")
            for key in self.blocks[path].keys():  # noqa: SIM118 - not a mapping
                digest, _, name = key.partition(".")
                self.places.setdefault(digest, (path, []))[1].append(name)

    def __contains__(self, digest: str) -> bool:
        return digest in self.places

    def __getitem__(self, digest: str) -> dict[str, torch.Tensor]:
        path, names = self.places[digest]
        return {name: self.blocks[path].get_tensor(f"{digest}.{name}") for name in names}

    def fill(self, digests: Sequence[str], make: Callable[[list[str]], Iterator[dict[str, torch.Tensor]]]) -> None:
        """Make what is not there; processes that start together share the work, and wait for each other's blocks."""
        from safetensors.torch import save

        missing = [digest for digest in dict.fromkeys(digests) if digest not in self]
        blocks = [missing[start : start + BLOCK] for start in range(0, len(missing), BLOCK)]
        paths = [self.folder / f"block-{records.fingerprint(block)}.safetensors" for block in blocks]
        for number in shards.claim_paths(paths, self.locks):
            made = zip(blocks[number], make(blocks[number]), strict=True)
            tensors = {f"{digest}.{name}": one.contiguous() for digest, row in made for name, one in row.items()}
            shards.write_whole(paths[number], save(tensors))
        self.refresh()


def square(pixels: np.ndarray, side: int, fit: str, *, channels: int) -> np.ndarray:
    """A film as a square, uint8 (side, side, channels).

    Args:
        fit: "crop" (shorter side to `side`, middle), "pad" (longer side, black around) or "resize" (aspect lost).
        channels: 1 or 3, as the autoencoder reads.
    """
    from PIL import Image, ImageOps

    picture = Image.fromarray(images.to_grey(pixels) if channels == 1 else images.to_rgb(pixels))
    way, size = Image.Resampling.BILINEAR, (side, side)
    if fit == "crop":
        picture = ImageOps.fit(picture, size, way)
    else:
        picture = ImageOps.pad(picture, size, way) if fit == "pad" else picture.resize(size, way)
    return np.asarray(picture).reshape(side, side, channels)


def weights_hash(module: Any) -> str:
    """Hash of a network's weights, 16 hex digits."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def in_float32(network: Any) -> Iterator[Any]:
    """A network in float32, for autoencoders that overflow in 16 bits."""
    import torch

    own = network.dtype
    if own != torch.float32:
        network.to(torch.float32)
    yield network
    if own != torch.float32:
        network.to(own)


def encode_films(vae: Any, squares: Sequence[np.ndarray], *, shifted: bool) -> list[dict[str, torch.Tensor]]:
    """Mean and deviation of the scaled latents of squares, float32 (C, h, w) each; no deviation where the autoencoder
    has none. `shifted`: whether the pipeline adds the autoencoder's shift back when it decodes.
    """
    import torch

    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(vae.device, torch.float32) / 127.5 - 1
    with torch.inference_mode():
        found = vae.encode(pixels.to(vae.dtype))
    scale, moved = float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0) * shifted
    code = getattr(found, "latent_dist", None)
    parts = {"mean": (found.latent if code is None else code.mean) - moved}
    if code is not None:
        parts["std"] = code.std
    rows = {name: (scale * part).float().cpu() for name, part in parts.items()}
    return [{name: part[row].clone() for name, part in rows.items()} for row in range(len(squares))]


def films_store(cache: Path, vae: Any, side: Side, recipe: Recipe, *, shifted: bool, batch_size: int) -> Store:
    """Latents of all films by an autoencoder; flipped ones too where the recipe asks for them, as "<hash>-flip"."""
    channels = int(vae.config.in_channels)
    store = Store(cache, records.fingerprint([weights_hash(vae), recipe.resolution, recipe.fit, channels, shifted]))
    rows = {digest: row for row, digest in enumerate(side.digests)}

    def make(block: list[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(block), batch_size):
            squares = []
            for name in block[start : start + batch_size]:
                digest, _, flip = name.partition("-")
                pixels = images.read(side.films.fetch(rows[digest])).pixels
                film = square(pixels, recipe.resolution, recipe.fit, channels=channels)
                squares.append(film[:, ::-1] if flip else film)
            yield from encode_films(vae, squares, shifted=shifted)

    wanted = [*rows, *(f"{digest}-flip" for digest in rows if recipe.horizontal_flip)]
    store.fill(wanted, make)
    return store


def prompts_store(
    cache: Path, pipeline: Any, prompts: Sequence[str], call: Mapping[str, Any], *, device: str, batch_size: int
) -> Store:
    """What the denoiser is told of every prompt, and of the empty one."""
    parts = [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None]
    limits = [getattr(pipeline, name).model_max_length for name in pipeline.components if name.startswith("tokenizer")
              and getattr(pipeline, name) is not None]  # fmt: skip
    store = Store(
        cache, records.fingerprint([type(pipeline).__name__, [*map(weights_hash, parts)], limits, dict(call)])
    )
    texts = {prompt_hash(prompt): prompt for prompt in ["", *prompts]}

    def make(block: list[str]) -> Iterator[dict[str, Any]]:
        # Alone, since it may be encoded unlike the others; a prompt's state depends on its batch in no other way.
        groups = [[name for name in block if not texts[name]]]
        rest = [name for name in block if texts[name]]
        groups += [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
        made: dict[str, Any] = {}
        for group in filter(None, groups):
            states = families.encode_prompts(pipeline, [texts[name] for name in group], call, device)
            made |= {name: {key: s[row].clone() for key, s in states.items()} for row, name in enumerate(group)}
        yield from (made[name] for name in block)

    store.fill(list(texts), make)
    return store


def prompt_hash(prompt: str) -> str:
    """Key of a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


def batch(
    side: Side, latents: Store, prompts: Store, rows: Sequence[int], draws: Sequence[Draw], recipe: Recipe
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Clean latents, float32 (N, C, H, W), and what the denoiser is told, of some films with their draws."""
    import torch

    clean, states = [], []
    for row, one in zip(rows, draws, strict=True):
        digest = side.digests[row]
        found = latents[f"{digest}-flip" if recipe.horizontal_flip and one.flip < 0.5 else digest]
        spread = found.get("std") if recipe.latents == "sample" else None
        clean.append(found["mean"] if spread is None else found["mean"] + spread * one.sample)
        prompt = "" if one.drop < recipe.empty_prompt_share else side.prompts[row]
        states.append(prompts[prompt_hash(prompt)])
    return torch.stack(clean), {name: torch.stack([state[name] for state in states]) for name in states[0]}
