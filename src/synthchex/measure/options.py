"""Options that every metric understands, groups of rows, and patients: what they may look like, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from synthchex.data.records import LABELS

Groups = dict[str, tuple[np.ndarray, np.ndarray]]
SIDES = ("predictions", "references")


@dataclass(frozen=True)
class Options:
    """Options of `compute` that every metric understands.

    Args:
        seed: of everything random.
        confidence_level: of intervals, between 0 and 1; None gives none.
        n_resamples: groups that are left out in turn, or bootstrap samples, of an interval that resamples; None is the
            metric's own number.
        groups: see `parse_groups`.
        patients: (ids of predictions or None, ids of references or None), the units that are resampled.
        own: options of the metric alone.

    Raises:
        ValueError: confidence_level not between 0 and 1, fewer than 5 resamples.
    """

    seed: int = 0
    confidence_level: float | None = None
    n_resamples: int | None = None
    groups: Any = None
    patients: Any = None
    own: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        level, resamples = self.confidence_level, self.n_resamples
        if level is not None and not 0 < level < 1:
            raise ValueError(f"confidence_level must be between 0 and 1, got {level}; 0.95 is usual")
        if resamples is not None and (isinstance(resamples, bool) or int(resamples) != resamples or resamples < 5):
            raise ValueError(
                f"n_resamples must be a whole number from 5, got {resamples!r}; leave it out for the usual"
            )


def replaced(options: Options, own: Mapping[str, Any]) -> Options:
    """The same options with other values of the metric's own."""
    return replace(options, own=own)


def parse_groups(groups: Any, predictions: int, references: int) -> Groups:
    """Row masks per label from what was passed as `groups`.

    Args:
        groups: {label: (mask of predictions, mask of references)}, or (labels of predictions, labels of references),
            each an array (N, 14) of CheXpert states in the usual order, a list of `labels_dict` (1 belongs, else not),
            or one name per row (None belongs nowhere).
        predictions: rows of that side.
        references: rows of that side.

    Raises:
        ValueError: of another form, or of another length.
    """
    if isinstance(groups, Mapping):
        pairs = {str(label): tuple(pair) for label, pair in groups.items()}
    elif isinstance(groups, Sequence) and not isinstance(groups, str) and len(groups) == 2:
        left, right = (_members(labels, name) for labels, name in zip(groups, SIDES, strict=True))
        counts = (len(groups[0]), len(groups[1]))
        pairs = {
            label: tuple(
                own.get(label, np.zeros(count, bool)) for own, count in zip((left, right), counts, strict=True)
            )
            for label in left | right
        }
    else:
        raise ValueError(
            "groups: expected {label: (mask of predictions, mask of references)} or a pair of label arrays (N, 14), "
            f"lists of labels_dict or lists of names, got {type(groups).__name__}"
        )
    return {label: _masks(label, pair, (predictions, references)) for label, pair in pairs.items()}


def check_patients(patients: Any, predictions: int, references: int | None) -> tuple[Any, Any] | None:
    """Patient ids of both sides as lists or integer arrays, whatever they came in.

    Args:
        patients: (ids of predictions or None, ids of references or None), one id of any kind per row; or None.
        predictions: rows of that side.
        references: rows of that side; None when there is none, whose ids are not looked at then.

    Raises:
        ValueError: not a pair, ids of another length, or a row without an id.
    """
    if patients is None:
        return None
    if not isinstance(patients, Sequence) or isinstance(patients, str) or len(patients) != 2:
        raise ValueError("patients: expected (ids of predictions or None, ids of references or None)")
    listed: list[Any] = []
    for ids, count, name in zip(patients, (predictions, references), SIDES, strict=True):
        if ids is None or count is None:
            listed.append(None)
            continue
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and len(ids) == count:
            listed.append(ids)
            continue
        values = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        if len(values) != count:
            raise ValueError(f"patients: expected {count} ids for {name}, one per row, got {len(values)}")
        unknown = [row for row, value in enumerate(values) if value is None or value != value]
        if unknown:
            raise ValueError(
                f"patients: expected an id for every row of {name}, got none in {len(unknown)} of them, first in row "
                f"{unknown[0]}; give each of these an id of its own, or leave the rows out"
            )
        listed.append(values)
    return listed[0], listed[1]


def numbered(ids: Sequence[Any] | None) -> np.ndarray | None:
    """Whole numbers for ids of any kinds: equal for equal ids, in an order that the order of rows does not change."""
    if ids is None:
        return None
    if isinstance(ids, np.ndarray):
        return np.unique(ids, return_inverse=True)[1]
    numbers = {value: i for i, value in enumerate(sorted(set(ids), key=lambda value: (type(value).__name__, value)))}
    return np.array([numbers[value] for value in ids], np.int64)


def patients_of(options: Options, predictions: int, references: int) -> tuple[Any, Any]:
    """Cluster ids of both sides; None for a side whose rows are independent.

    Raises:
        ValueError: as `check_patients`.
    """
    return check_patients(options.patients, predictions, references) or (None, None)


def select_patients(options: Options, *rows: np.ndarray) -> Options:
    """The options for some rows of the predictions, or of both sides."""
    if options.patients is None:
        return options
    chosen = [None if ids is None else np.asarray(ids)[mask] for ids, mask in zip(options.patients, rows, strict=False)]
    return replace(options, patients=(chosen[0], chosen[1] if len(chosen) > 1 else None))


def too_few(counts: Mapping[str, int], fewest: int) -> str | None:
    """A sentence when a side has too few rows."""
    lacking = {name: count for name, count in counts.items() if count < fewest}
    if not lacking:
        return None
    return f"insufficient n: expected at least {fewest} rows, got " + ", ".join(
        f"{count} {name.removeprefix('n_')}" for name, count in lacking.items()
    )


def _members(labels: Any, name: str) -> dict[str, np.ndarray]:
    """Bool (N,) of each label from states (N, 14), labels_dicts, or one name per row."""
    rows = labels if isinstance(labels, Sequence) and not isinstance(labels, str) else np.atleast_1d(labels)
    if len(rows) and all(isinstance(row, Mapping) for row in rows):
        return {label: np.array([row.get(label) == 1 for row in rows]) for label in LABELS}
    kinds = {type(row) for row in rows if row is not None and not (isinstance(row, float) and math.isnan(row))}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        names = np.array([row if isinstance(row, str) else "" for row in rows], object)
        return {label: names == label for label in sorted(set(names.tolist()) - {""})}
    values = np.asarray(labels)
    if values.ndim == 1 and not len(values):
        return {}
    if values.ndim != 2 or values.shape[1] != len(LABELS):
        raise ValueError(
            f"groups: expected labels of shape (N, {len(LABELS)}) for {name}, or a name per row, got {values.shape}"
        )
    return {label: np.asarray(values[:, column] == 1) for column, label in enumerate(LABELS)}


def _masks(label: str, pair: tuple[Any, ...], counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    if len(pair) != 2:
        raise ValueError(f"groups[{label!r}]: expected a pair of masks, got {len(pair)} of them")
    masks = []
    for mask, count, name in zip(pair, counts, SIDES, strict=True):
        values = np.asarray(mask)
        if values.shape != (count,) or values.dtype.kind not in "bui" or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"groups[{label!r}]: expected {count} true or false values for {name}, got {values.dtype} of shape "
                f"{values.shape}"
            )
        masks.append(values.astype(bool))
    return masks[0], masks[1]
