"""Which films belong to a label, which do not, and which are left out. Knows label states only."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from synthchex.data.records import LABELS

Uncertain = Literal["ignore", "positive", "negative"]


class Members(NamedTuple):
    """Masks of one label over the rows of a set, bool (N,): a row may be in neither."""

    present: np.ndarray
    absent: np.ndarray


def members(labels: np.ndarray, uncertain: Uncertain = "ignore") -> dict[str, Members]:
    """For each of the 14 labels, the rows where it is present and those where it is not.

    Args:
        labels: float, (N, 14): 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        uncertain: what -1 counts as; `ignore` puts such a row on neither side. A label that is not mentioned is absent,
            as CheXpert's labeller means it; `states` tells both apart.

    Raises:
        ValueError: an unknown policy, or another shape.
    """
    if uncertain not in get_args(Uncertain):
        raise ValueError(f"uncertain must be one of {get_args(Uncertain)}, got {uncertain!r}")
    if labels.ndim != 2 or labels.shape[1] != len(LABELS):
        raise ValueError(f"expected labels of shape (N, {len(LABELS)}), got {labels.shape}")
    doubtful = labels == -1
    present = (labels == 1) | (doubtful if uncertain == "positive" else False)
    absent = (labels == 0) | np.isnan(labels) | (doubtful if uncertain == "negative" else False)
    return {label: Members(present[:, i], absent[:, i]) for i, label in enumerate(LABELS)}


def states(labels: np.ndarray) -> dict[str, dict[str, int]]:
    """How many rows are in each state, per label: present, absent, uncertain, not mentioned."""
    return {
        label: {
            "present": int((column == 1).sum()),
            "absent": int((column == 0).sum()),
            "uncertain": int((column == -1).sum()),
            "not mentioned": int(np.isnan(column).sum()),
        }
        for label, column in zip(LABELS, labels.T, strict=True)
    }
