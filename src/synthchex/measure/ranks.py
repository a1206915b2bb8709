"""What several processes have read, as if one had read it: rows, groups and patients in order of rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthchex.measure.options import Groups


@dataclass(frozen=True)
class Rows:
    """What one call of a metric is about. Sides, and whatever in `own` has rows, have a class method `joined`."""

    fake: Any
    real: Any
    groups: Groups | None
    patients: tuple[Any, Any] | None
    own: Mapping[str, Any]


def gathered(read: Callable[[], Rows], count: int) -> Rows:
    """What all processes have read, on every one of them.

    Args:
        read: reads what belongs to this process.
        count: processes that take part.

    Raises:
        ValueError: no process group, or one of another size; a process could not read its part, which is said on all of
            them instead of leaving the others to wait; parts that do not fit together.
    """
    from torch import distributed

    if not distributed.is_initialized():
        raise ValueError(
            "expected a process group for num_process > 1, got none; create accelerate.PartialState() first, or leave "
            "num_process out when one process has all rows"
        )
    size = distributed.get_world_size()
    if size != count:
        raise ValueError(f"expected num_process to be the {size} processes of the group, got {count}; load it so")
    mine: Rows | str
    failure: Exception | None = None
    try:
        mine = read()
    except Exception as error:  # raised below, when the others have been told
        mine, failure = f"{type(error).__name__}: {error}", error
    parts: list[Any] = [None] * size
    distributed.all_gather_object(parts, mine)
    if failure is not None:
        raise failure
    failed = [f"process {rank}: {part}" for rank, part in enumerate(parts) if isinstance(part, str)]
    if failed:
        raise ValueError(f"expected rows from all {size} processes, got an error from {'; '.join(failed)}")
    return joined(parts)


def joined(parts: Sequence[Rows]) -> Rows:
    """One process's rows from those of several.

    Raises:
        ValueError: some have references, groups or patients and others have not, or sides of different kinds.
    """
    own = {key: _joined([part.own[key] for part in parts], key) for key in parts[0].own}
    return Rows(
        _joined([part.fake for part in parts], "predictions"),
        _joined([part.real for part in parts], "references"),
        _groups(parts),
        _patients(parts),
        own,
    )


def _joined(values: Sequence[Any], name: str) -> Any:
    _all_or_none(values, name)
    first = values[0]
    return type(first).joined(values) if hasattr(type(first), "joined") else first


def _groups(parts: Sequence[Rows]) -> Groups | None:
    _all_or_none([part.groups for part in parts], "groups")
    if parts[0].groups is None:
        return None
    labels = dict.fromkeys(label for part in parts for label in part.groups or {})
    # A process that has no row of a label need not have heard of it.
    masks = {
        label: [
            (part.groups or {}).get(label, (np.zeros(len(part.fake), bool), np.zeros(_length(part.real), bool)))
            for part in parts
        ]
        for label in labels
    }
    return {
        label: (np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs]))
        for label, pairs in masks.items()
    }


def _patients(parts: Sequence[Rows]) -> tuple[Any, Any] | None:
    _all_or_none([part.patients for part in parts], "patients")
    if parts[0].patients is None:
        return None
    sides: list[Any] = []
    for side, name in enumerate(("predictions", "references")):
        ids = [part.patients[side] for part in parts if part.patients is not None]
        _all_or_none(ids, f"patients of {name}")
        sides.append(None if ids[0] is None else [value for part in ids for value in part])
    return sides[0], sides[1]


def _length(side: Any) -> int:
    return 0 if side is None else len(side)


def _all_or_none(values: Sequence[Any], name: str) -> None:
    without = [rank for rank, value in enumerate(values) if value is None]
    if without and len(without) < len(values):
        raise ValueError(f"expected {name} from every process or from none, got none from {without}; pass them on all")
