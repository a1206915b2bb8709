"""Which rows take part: bool columns, clusters of rows that belong together, random subsets. Knows no metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Draws = tuple[np.ndarray, np.ndarray]


def columns(columns: np.ndarray, rows: int, name: str) -> np.ndarray:
    """Bool (rows, B) columns, each with at least 2 rows.

    Raises:
        ValueError: of another type or shape, or a column with fewer than 2 rows.
    """
    columns = np.asarray(columns)
    if columns.ndim != 2 or columns.shape[0] != rows or columns.dtype != bool or columns.shape[1] == 0:
        raise ValueError(
            f"{name}_columns: expected bool of shape ({rows}, B), got {columns.dtype} of shape {columns.shape}"
        )
    if columns.sum(axis=0).min() < 2:
        worst = int(columns.sum(axis=0).argmin())
        raise ValueError(
            f"{name}_columns: expected at least 2 rows in every selection, got {int(columns[:, worst].sum())} in "
            f"column {worst}; leave that selection out"
        )
    return columns


def paired_columns(given: tuple[np.ndarray, np.ndarray] | None, real: int, fake: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of both sides, as many on each; None for none.

    Raises:
        ValueError: as `columns`, or their numbers differ.
    """
    if given is None:
        return np.zeros((real, 0), bool), np.zeros((fake, 0), bool)
    left, right = columns(given[0], real, "real"), columns(given[1], fake, "fake")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"expected as many real as fake columns, got {left.shape[1]} and {right.shape[1]}")
    return left, right


def clusters(ids: Sequence[object] | np.ndarray | None, rows: int, name: str) -> np.ndarray | None:
    """Cluster number of each row from ids of any kind; None when every row is its own.

    Raises:
        ValueError: another number of ids than rows.
    """
    if ids is None:
        return None
    if len(ids) != rows:
        raise ValueError(f"{name}: expected {rows} ids, one per row, got {len(ids)}")
    return np.unique(np.asarray(ids), return_inverse=True)[1]


def subset_rows(real: int, fake: int, *, subsets: int, subset_size: int, seed: int) -> list[Draws]:
    """Row numbers (real, fake) of each subset, in torch-fidelity's order of draws.

    Raises:
        ValueError: no subset, or subset_size not between 2 and min(real, fake).
    """
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, got {subsets}; leave it out for the exact value")
    if not 2 <= subset_size <= min(real, fake):
        raise ValueError(
            f"subset_size must be at least 2 and at most min(real, fake) rows, got {subset_size} for {real} real and "
            f"{fake} fake; pass a smaller subset_size"
        )
    random = np.random.RandomState(seed)
    draws = []
    for _ in range(subsets):
        chosen_fake = random.choice(fake, subset_size, replace=False)
        draws.append((random.choice(real, subset_size, replace=False), chosen_fake))
    return draws
