"""Paths of many films without a path object for each. Knows nothing of tables or of what the files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Files(Sequence[Path]):
    """Paths of named films, made when asked for: a million of them would be half a gigabyte.

    `elsewhere` has those that do not lie at `base` / name, by row.
    """

    base: Path
    names: Sequence[str]
    elsewhere: Mapping[int, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        return self.elsewhere.get(row) or self.base / self.names[row]
