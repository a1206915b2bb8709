"""A loaded dataset made ready for a training loop: labels as arrays, films of one label, batches as tensors.

from datasets import load_dataset
from synthchex.data import training

films = load_dataset("dataset", split="train")
edema = training.with_label(films, "Edema")
edema.set_transform(training.Batches(size=224))     # pixel_values, labels, label_mask
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from synthchex.data import images, records

State = Literal["present", "absent", "uncertain", "not mentioned"]
Policy = Literal["ignore", "positive", "negative"]
VALUES: dict[str, int | None] = {"present": 1, "absent": 0, "uncertain": -1, "not mentioned": None}


class MultiHot(NamedTuple):
    """Labels of films as arrays: `values` float32 (N, L), 1 present and 0 not; `mask` bool (N, L), where that is known.

    Where the mask is False the value is 0 and means nothing: leave it out of the loss.
    """

    values: np.ndarray
    mask: np.ndarray


def multi_hot(
    labels: Sequence[Mapping[str, int | None]],
    *,
    names: Sequence[str] = records.LABELS,
    uncertain: Policy = "ignore",
    not_mentioned: Policy = "ignore",
) -> MultiHot:
    """Labels as arrays.

    Args:
        labels: values of `labels_dict`, one per film.
        names: which labels, in which order.
        uncertain: what -1 becomes: left out, 1 (CheXpert's U-Ones) or 0 (U-Zeros).
        not_mentioned: what None becomes; "negative" is what many papers do with CheXpert labels.

    Raises:
        ValueError: a label that is not one of the 14, or another policy.
    """
    _check(names)
    policies = {"uncertain": uncertain, "not_mentioned": not_mentioned}
    for option, policy in policies.items():
        if policy not in get_args(Policy):
            raise ValueError(f"{option} must be one of {list(get_args(Policy))}, got {policy!r}")
    states = np.array([[row[name] for name in names] for row in labels], np.float32).reshape(-1, len(names))
    mask = np.isin(states, (0, 1))
    values = np.where(mask, states, np.float32(0))
    for policy, where in ((uncertain, states == -1), (not_mentioned, np.isnan(states))):
        if policy != "ignore":
            mask |= where
            values[where] = policy == "positive"
    return MultiHot(values, mask)


def with_label(films: Any, label: str, state: State = "present") -> Any:
    """The films of a loaded or streamed dataset whose label has this state; no film is decoded.

    Raises:
        ValueError: an unknown label or state.
    """
    _check([label])
    if state not in VALUES:
        raise ValueError(f"state must be one of {list(VALUES)}, got {state!r}")
    keep = partial(_has, label=label, value=VALUES[state])
    if not hasattr(films, "select"):
        return films.filter(keep, input_columns=["labels_dict"])
    chosen = films.select_columns(["labels_dict"]).with_format(None)
    return films.select([row for row, labels in enumerate(chosen["labels_dict"]) if keep(labels)])


@dataclass(frozen=True)
class Batches:
    """Batches as tensors, for `set_transform` of a loaded dataset or `map(..., batched=True)` of a streamed one.

    Gives `pixel_values` float32 (N, channels, size, size), `(x - mean) / std` of x in 0..1; `labels` and `label_mask`
    as of `multi_hot`; other columns as they are. Films are resized whole, without keeping their aspect.
    """

    size: int = 224
    channels: int = 3
    mean: float = 0.0
    std: float = 1.0
    names: tuple[str, ...] = records.LABELS
    uncertain: Policy = "ignore"
    not_mentioned: Policy = "ignore"

    def __post_init__(self) -> None:
        """Refuse what gives no film."""
        if self.size < 1 or self.channels not in (1, 3) or self.std <= 0:
            raise ValueError(
                f"size must be at least 1, channels 1 or 3, std above 0, got {self.size}, {self.channels}, {self.std}"
            )
        _check(self.names)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """A batch of columns as tensors; columns that are not there are left out."""
        import torch

        made: dict[str, Any] = {name: values for name, values in batch.items() if name not in ("image", "labels_dict")}
        if "image" in batch:
            films = np.stack([self.film(image) for image in batch["image"]])
            made["pixel_values"] = torch.from_numpy((films - np.float32(self.mean)) / np.float32(self.std))
        if "labels_dict" in batch:
            found = multi_hot(
                batch["labels_dict"], names=self.names, uncertain=self.uncertain, not_mentioned=self.not_mentioned
            )
            made |= {"labels": torch.from_numpy(found.values), "label_mask": torch.from_numpy(found.mask)}
        return made

    def film(self, image: Any) -> np.ndarray:
        """One film, float32 (channels, size, size) in 0..1."""
        from PIL import Image

        grey = Image.fromarray(images.to_grey(images.read(image).pixels))
        resized = grey.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.repeat(np.asarray(resized, np.float32)[None] / np.float32(255), self.channels, axis=0)


def _has(labels: Mapping[str, int | None], label: str, value: int | None) -> bool:
    return labels[label] == value


def _check(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in records.LABELS]
    if unknown or not names:
        raise ValueError(f"labels must be among the 14 CheXpert labels {list(records.LABELS)}, got {unknown}")
