"""Where films may go: open, credentialed or unknown. Read from the rows, so that a set keeps its policy when it is
copied, cut or renamed.
"""

from __future__ import annotations

from pathlib import Path

from synthchex.data import shards, tables

# The strictest first; what is unknown is treated as credentialed.
POLICIES = ("credentialed", "unknown", "open")
COLUMN = "source_policy"
TEXT = (".csv", ".tsv", ".jsonl")


def source_policy(source: str | Path) -> str:
    """Policy of a folder of shards, a table or a saved dataset: that of its rows, the strictest where they differ.

    Returns:
        "open", "credentialed", or "unknown", also where some rows do not say.
    """
    import pyarrow.parquet as pq

    path = Path(source)
    found: set[str] = set()
    if _is_other_table(path):
        table = tables.open_table(path)
        values = table.column(COLUMN) if COLUMN in table.columns else [None]
        found = {str(value) if value in POLICIES else "unknown" for value in values}
        return next(policy for policy in POLICIES if policy in found)
    for file in [path] if path.is_file() else shards.parquet_files(path):
        if COLUMN in pq.read_schema(file).names:
            found |= {value or "unknown" for value in pq.read_table(file, columns=[COLUMN])[0].unique().to_pylist()}
        else:
            found.add("unknown")
    return next((policy for policy in POLICIES if policy in found), "unknown")


def stated(source: str | Path, given: str | None) -> str:
    """The policy that was given, or that the rows of a source say; "unknown" where neither says.

    Raises:
        ValueError: rows are credentialed and something looser was given.
    """
    path = Path(source)
    own = source_policy(path) if path.exists() and has_rows(path) else "unknown"
    if own == "credentialed" and given not in (None, own):
        raise ValueError(f"{source} says that its films are credentialed, got --source-policy {given}; leave it out")
    return given or own


def has_rows(source: Path) -> bool:
    """Whether `source_policy` can be asked of it."""
    return (
        source.suffix == ".parquet"
        or _is_other_table(source)
        or any(True for pattern in ("data/*.parquet", "*.parquet") for _ in source.glob(pattern))
    )


def _is_other_table(source: Path) -> bool:
    """Whether it is a table that is no Parquet: text, or a folder of `save_to_disk`."""
    return (source.is_file() and source.suffix in TEXT) or (source / "state.json").is_file()
