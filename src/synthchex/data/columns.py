"""Whole columns in Arrow, without a Python object per cell: text of data frames, label states of structs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import records

if TYPE_CHECKING:
    import pyarrow


def text(column: Any) -> pyarrow.ChunkedArray | None:
    """A column of text of a data frame in Arrow, None where it holds something else."""
    import pyarrow as pa

    try:
        found = pa.array(column, pa.large_string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def label_states(cells: pyarrow.ChunkedArray) -> np.ndarray | None:
    """Label states of a struct of integers, float32 (N, 14); None where the column is another thing or has other
    values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    if not names or set(names) - set(records.LABELS) or not all(pa.types.is_integer(field.type) for field in kind):
        return None
    states = np.full((len(cells), len(records.LABELS)), np.nan, np.float32)
    for label in names:
        values = pc.struct_field(cells, label).cast(pa.float32())  # a null struct has null fields
        states[:, records.LABELS.index(label)] = values.to_numpy()
    return states if np.isin(states[~np.isnan(states)], (-1, 0, 1)).all() else None
