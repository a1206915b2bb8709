"""Image networks with a new head of 14 outputs: which films they want, how they are made, kept and loaded again.

Any network of transformers: with a classification class, that one; else its tower with a linear head. Ids of timm work
where timm is installed, through transformers. Films are squashed to the side of the network, as `data.training.Batches`
does, and held as bytes outside of Python's memory when they are many.
"""

from __future__ import annotations

import inspect
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.ahead import in_order
from synthchex.data import images as films
from synthchex.data.records import LABELS
from synthchex.data.sources import ImageSet
from synthchex.models import encoders
from synthchex.models.known import ENCODERS, Named
from synthchex.options import Progress
from synthchex.utility.request import Request
from synthchex.utility.runs import Learned, Learner, Task

if TYPE_CHECKING:
    import torch

IN_MEMORY = 2**30  # bytes of films that need no file
Read = Callable[[ImageSet], tuple[np.ndarray, np.ndarray, Sequence[str], Mapping[str, int]]]


class Look(NamedTuple):
    """What a network wants of a film: side in pixels, channels, and mean and deviation of each channel in 0..1."""

    side: int
    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Bank:
    """Films of all sets, uint8 (H, W) each, by a number that counts through all sets."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.sets: list[np.ndarray] = []
        self.ends: list[int] = []

    def add(self, pixels: np.ndarray) -> np.ndarray:
        """Numbers of the films of another set, (N, 1)."""
        first = self.ends[-1] if self.ends else 0
        self.sets.append(pixels)
        self.ends.append(first + len(pixels))
        return np.arange(first, self.ends[-1])[:, None]

    def films(self, numbers: np.ndarray) -> np.ndarray:
        """Films by number, uint8 (N, H, W)."""
        out = np.empty((len(numbers), self.look.side, self.look.side), np.uint8)
        for place, number in enumerate(numbers.ravel()):
            which = int(np.searchsorted(self.ends, number, side="right"))
            out[place] = self.sets[which][number - (self.ends[which - 1] if which else 0)]
        return out


def reader(request: Request, *, quiet: bool) -> tuple[Read, Learner, str]:
    """How films are read for a backbone, the learner that fine-tunes it, and the version of its weights."""
    from synthchex.utility import finetune

    name = source(str(request.backbone))
    bank = Bank(look_of(name, request.training.image_size))
    read = partial(_read, bank=bank, num_workers=request.num_workers, quiet=quiet)

    def learn(task: Task) -> Learned:
        return finetune.fine_tune(task, name, bank)

    return read, learn, version(name)


def version(name: str) -> str:
    """Hash of a folder's configuration and weights; of a Hub id, its commit."""
    import transformers

    from synthchex.models.networks import digest

    folder = Path(name)
    if folder.is_dir():
        return digest(*sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]))
    with encoders.loading(name):
        return f"{name} {getattr(transformers.AutoConfig.from_pretrained(name), '_commit_hash', None)}"


def source(backbone: str) -> str:
    """The Hub id or folder of a backbone, which may be named as an encoder is.

    Raises:
        ValueError: nothing of that name, or an encoder that transformers does not load.
    """
    named = encoders.find_named(backbone, ENCODERS)
    if named.family != "auto":
        raise ValueError(f"expected a network that transformers loads, got {backbone} of {named.family}; give another")
    return named.model


def look_of(name: str, side: int | None = None) -> Look:
    """What a network wants, from its configuration and its image processor.

    Raises:
        ValueError: it cannot be reached, or does not say its size; timm is needed and not installed.
    """
    import transformers

    try:
        with encoders.loading(name):
            config = transformers.AutoConfig.from_pretrained(name)
            if hasattr(config, "pretrained_cfg"):  # of timm
                return _timm_look(dict(config.pretrained_cfg), side)
            from synthchex.models.auto import processor_of

            processor = processor_of(Named(name, "", ""))
    except (OSError, ImportError) as error:
        raise ValueError(
            f"{name} cannot be loaded ({str(error).strip().splitlines()[0]}); give a Hub id you have access to, or a "
            "folder; networks of timm need timm: pip install timm"
        ) from error
    found = side or _side(processor, config)
    channels = encoders.vision_channels(config)
    scaled = bool(getattr(processor, "do_normalize", True)) and getattr(processor, "image_mean", None) is not None
    mean, deviation = (processor.image_mean, processor.image_std) if scaled else ([0.0], [1.0])
    return Look(found, channels, _each(mean, channels), _each(deviation, channels))


def _timm_look(wanted: Mapping[str, Any], side: int | None) -> Look:
    channels, _, own = wanted["input_size"]
    return Look(side or int(own), int(channels), _each(wanted["mean"], channels), _each(wanted["std"], channels))


def _side(processor: Any, config: Any) -> int:
    """Side of the films that a processor makes, else that of the configuration."""
    for told in (getattr(processor, "crop_size", None), getattr(processor, "size", None)):
        sides = [told] if told is None or isinstance(told, int) else [told.get(k) for k in ("height", "shortest_edge")]
        known = [int(one) for one in sides if isinstance(one, int)]
        if known:
            return known[0]
    found = getattr(getattr(config, "vision_config", config), "image_size", None)
    if not isinstance(found, int):
        raise ValueError(f"expected a network that says the size of its films, got {found}; give --image-size")
    return found


def _each(values: Any, channels: int) -> tuple[float, ...]:
    """One value per channel."""
    given = [float(value) for value in (values if isinstance(values, list | tuple) else [values])]
    return tuple(given[:channels]) if len(given) >= channels else (given[0],) * channels


def make(name: str, seed: int) -> Any:
    """A network with 14 fresh outputs named after the labels; the head depends on the seed alone.

    Raises:
        ValueError: weights other than the head's are missing.
    """
    import torch
    import transformers

    names = dict(enumerate(LABELS))
    options: dict[str, Any] = {
        "num_labels": len(LABELS),
        "id2label": names,
        "label2id": {label: number for number, label in names.items()},
        "problem_type": "multi_label_classification",
        "ignore_mismatched_sizes": True,
        "dtype": torch.float32,
        "output_loading_info": True,
    }
    with encoders.loading(name), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.AutoConfig.from_pretrained(name)
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            return headed(name)
        model, told = transformers.AutoModelForImageClassification.from_pretrained(name, **options)
    inside = f"{model.base_model_prefix}."
    replaced = {one[0] if isinstance(one, tuple) else one for one in told["mismatched_keys"]}
    missing = set(told["missing_keys"]) - replaced
    lost = sorted(key for key in missing if key.startswith(inside) and "pooler" not in key)
    if lost:
        raise ValueError(
            f"{name} lacks {len(lost)} weights of {type(model).__name__}, e.g. {lost[:3]}, which would be random; give "
            "a whole checkpoint"
        )
    return model


def headed(name: str) -> Any:
    """A network without a classification class, by its pooled output or class token, with a linear head."""
    import torch
    from transformers import AutoModel

    tower = AutoModel.from_pretrained(name, dtype=torch.float32)
    tower = getattr(tower, "vision_model", tower)
    side, channels = getattr(tower.config, "image_size", 64), encoders.vision_channels(tower.config)
    with torch.inference_mode():
        width = _pooled(tower, torch.zeros(1, channels, side, side)).shape[1]

    class Headed(torch.nn.Module):
        """Tower and head; gives `logits` as classifiers of transformers do."""

        def __init__(self) -> None:
            super().__init__()
            self.tower, self.config, self.head = tower, tower.config, torch.nn.Linear(width, len(LABELS))

        def forward(self, pixel_values: torch.Tensor) -> _Logits:
            return _Logits(self.head(_pooled(self.tower, pixel_values)))

    return Headed()


def _pooled(tower: Any, inputs: torch.Tensor) -> torch.Tensor:
    output = tower(pixel_values=inputs)
    found = getattr(output, "pooler_output", None)
    pooled: torch.Tensor = output.last_hidden_state[:, 0] if found is None else found.flatten(1)
    return pooled


class _Logits(NamedTuple):
    logits: Any


def forward(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Logits (N, 14); position codes are stretched where the films are of another size than the network's."""
    inner = getattr(model, "module", model)
    own = getattr(inner.config, "image_size", inputs.shape[-1])
    stretch = own != inputs.shape[-1] and "interpolate_pos_encoding" in inspect.signature(inner.forward).parameters
    logits: torch.Tensor = model(pixel_values=inputs, **({"interpolate_pos_encoding": True} if stretch else {})).logits
    return logits.float()


def keep(model: Any, look: Look, folder: Path) -> None:
    """Write a trained network so that transformers, and `synthchex evaluate --classifier FOLDER`, load it."""
    from transformers import ViTImageProcessor

    if not hasattr(model, "save_pretrained"):  # `headed`: the tower for AutoModel, its head beside it
        from safetensors.torch import save_file

        model.tower.save_pretrained(folder)
        save_file(
            {name: one.contiguous() for name, one in model.head.state_dict().items()}, folder / "head.safetensors"
        )
        return
    with encoders.loading(str(folder)):  # without its bar
        model.save_pretrained(folder)
    size = {"height": look.side, "width": look.side}
    processor = ViTImageProcessor(size=size, resample=3, image_mean=list(look.mean), image_std=list(look.deviation))
    processor.save_pretrained(folder)


def _read(
    images: ImageSet, *, bank: Bank, num_workers: int, quiet: bool
) -> tuple[np.ndarray, np.ndarray, Sequence[str], Mapping[str, int]]:
    """Numbers of the readable films of a set in the bank, their rows, hashes, and what was skipped by reason."""
    from PIL import Image

    side, lock = bank.look.side, threading.Lock()

    def look(row: int) -> tuple[str, np.ndarray | str]:
        try:
            with lock:  # tables are read by one thread at a time
                source = images.fetch(row)
            grey = Image.fromarray(films.to_grey(films.read(source).pixels))
            small = grey.resize((side, side), Image.Resampling.BICUBIC)
            return films.content_hash(source), np.asarray(small)
        except films.UnreadableImage as error:
            return "", error.reason

    pixels, rows, hashes, skipped = _room(len(images), side), list[int](), list[str](), Counter[str]()
    with Progress(f"read {Path(images.source).name}", len(images), quiet=quiet, unit="films") as progress:
        for row, (digest, found) in enumerate(in_order(look, len(images), num_workers=num_workers, ahead=64)):
            if isinstance(found, str):
                skipped[found] += 1
            else:
                pixels[len(rows)] = found
                rows.append(row)
                hashes.append(digest)
            progress.advance(row + 1)
    if not rows:
        raise ValueError(f"expected readable films in {images.source}, got none of {len(images)}: {dict(skipped)}")
    return bank.add(pixels[: len(rows)]), np.array(rows, np.int64), hashes, skipped


def _room(count: int, side: int) -> np.ndarray:
    """An array to fill: in memory when small, else in a file without a name, which vanishes with the process."""
    if count * side * side <= IN_MEMORY:
        return np.empty((count, side, side), np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=(count, side, side))
