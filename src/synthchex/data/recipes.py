"""YAML into frozen dataclasses: unknown keys are errors that list the valid ones. Knows nothing of what the keys
mean.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

Recipe = TypeVar("Recipe")


def find(name: str, folder: Path) -> Path:
    """A YAML by path, or by the name of one in `folder`.

    Raises:
        ValueError: neither is there; the message lists the names there are.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"expected a YAML file, got {name}, which is not there")
        return path
    named = folder / f"{name}.yaml"
    if not named.is_file():
        raise ValueError(
            f"expected a .yaml file or one of {sorted(p.stem for p in folder.glob('*.yaml'))}, got {name!r}"
        )
    return named


def read(path: Path, kind: type[Recipe], **changes: Any) -> Recipe:
    """One YAML as `kind`; `changes` that are not None replace what it says."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"expected YAML in {path}: {error}") from error
    return build(found | {k: v for k, v in changes.items() if v is not None}, kind, where=str(path))


def build(found: Any, kind: type[Recipe], *, where: str) -> Recipe:
    """A mapping as `kind`.

    Raises:
        ValueError: not a mapping, an unknown key, a missing one, or a value the dataclass refuses.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{where} must be a mapping, got {type(found).__name__}")
    valid = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(found) - set(valid))
    if unknown:
        raise ValueError(f"{where} has unknown keys {unknown}; the valid ones are {valid}")
    try:
        return kind(**found)
    except TypeError as error:
        raise ValueError(f"{where} is not complete: {error}") from error


def typed(recipe: str, name: str, kind: type, value: Any, *, may_be_none: bool = False) -> Any:
    """A value as its field has it: YAML reads 1e-4 as text and gives lists for tuples.

    Raises:
        ValueError: it is of another kind.
    """
    if value is None and may_be_none:
        return None
    try:
        if kind is tuple and not isinstance(value, str):
            return tuple(str(word) for word in value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return value
    except (TypeError, ValueError):
        pass
    raise ValueError(f"recipe {recipe}: {name} must be {kind.__name__}, got {value!r}")
