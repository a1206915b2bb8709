"""A row as it may leave: without metadata, under an opaque name, with what its source allows of prompt and columns.

Knows one row at a time and what was taken from it; knows neither files nor the Hub.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from synthchex.data import images, records
from synthchex.data.importers.policies import POLICIES
from synthchex.gate import identifiers, metadata, texts

if TYPE_CHECKING:
    from datasets import Features

Prompts = Literal["keep", "withhold", "from-labels"]
NAMES = ("filename", "id")
RECORD = ("image", "filename", "prompt", "labels_dict")
# Said of a model or a run, not of a film, and without free text of a judge.
IMPERSONAL = (*(name for name in records.PROVENANCE_COLUMNS if name != "seed"), "quality", "judge", "drop_reason")
# A seed follows from the id of its prompt, so who has a list of ids could find which one it was.
OPEN_ONLY = ("seed", "quality_scores")
# Versions and revisions look like long numbers.
TECHNICAL = ("model", "revision", "scheduler", "dtype", "versions", "judge")


@dataclass(frozen=True)
class Terms:
    """Where prompts and real films come from ("open", "credentialed", "unknown") and what becomes of the prompts:
    "keep", "withhold" (null), or "from-labels" (a text that says what the labels say).
    """

    policy: str = "unknown"
    prompts: Prompts = "keep"

    def __post_init__(self) -> None:
        """Refuse words that mean nothing here."""
        if self.policy not in POLICIES:
            raise ValueError(f"source policy must be one of {POLICIES}, got {self.policy!r}")
        if self.prompts not in get_args(Prompts):
            raise ValueError(f"prompts must be one of {get_args(Prompts)}, got {self.prompts!r}")

    @property
    def allowed(self) -> bool:
        """Whether the prompts that are to be published may be."""
        return self.policy == "open" or self.prompts != "keep"


class Released(NamedTuple):
    """A row that may leave.

    `found` are kinds of identifiers that are still in it, by column; `removed` what was taken away: "<where>: <kind>"
    for identifiers, "metadata" for a file that had some; `lost` why its film cannot leave, or None.
    """

    row: dict[str, Any]
    found: Mapping[str, list[str]]
    removed: Counter[str]
    lost: str | None


def columns(names: list[str], terms: Terms) -> list[str]:
    """Columns that may leave, of all others none: those of a record, what is said of the model, and of an open source
    what is said of a film."""
    allowed = {*RECORD, *IMPERSONAL, *(OPEN_ONLY if terms.policy == "open" else ())}
    return [name for name in names if name in allowed]


def features(found: Features, terms: Terms) -> Features:
    """Types of the columns that may leave."""
    from datasets import Features

    return Features({name: found[name] for name in columns(list(found), terms)})


def namer(secret: bytes) -> Callable[[str], str]:
    """A function from names to opaque ones, 32 hex digits: always the same ones with this secret, nothing without it.

    The second film of a name gets another one, and so on, so rows must come in the same order every time.
    """
    seen: Counter[str] = Counter()

    def opaque(name: str) -> str:
        seen[name] += 1
        return hmac.new(secret, f"{name}\x1f{seen[name]}".encode(), hashlib.sha256).hexdigest()[:32]

    return opaque


def release(row: Mapping[str, Any], name: str, terms: Terms) -> Released:
    """One row as it may leave.

    Args:
        row: as it is stored: `image` {"bytes", "path"}, `filename`, `prompt`, `labels_dict` and any other columns.
        name: opaque name of the film, without a suffix.
        terms: what its source allows.
    """
    out = {column: row[column] for column in columns(list(row), terms)}
    removed: Counter[str] = Counter()
    for where in [*NAMES, "image"]:
        old = (row.get("image") or {}).get("path") if where == "image" else row.get(where)
        removed.update(f"name: {kind}" for kind in identifiers.named(str(old or "")))
    suffix, lost = ".png", None
    try:
        clean = metadata.cleaned(images.read_bytes(_source(row["image"])))
    except images.UnreadableImage as error:
        lost = error.reason
    else:
        suffix = clean.suffix
        out["image"] = {"bytes": clean.content, "path": name + suffix}
        removed.update(["metadata"] if clean.said else [])
        removed.update({f"metadata: {kind}" for text in clean.said for kind in identifiers.named(text)})
    out |= {column: name + suffix if column == "filename" else name for column in NAMES if column in out}
    for column in [name for name in TECHNICAL if isinstance(out.get(name), str)]:
        short = identifiers.without_folders(out[column])
        removed.update(["folder of a model"] if short != out[column] else [])
        out[column] = short
    if "prompt" in out and terms.prompts != "keep":
        made = texts.from_labels(row["labels_dict"] or {}) if terms.prompts == "from-labels" else None
        removed.update(["prompt"] if row["prompt"] else [])
        out["prompt"] = made
    return Released(out, _identifiers(out), removed, lost)


def free_text(row: Mapping[str, Any], terms: Terms) -> str:
    """What a released row says in words, but for names, technical columns and prompts that were made from labels."""
    silent = {*NAMES, *TECHNICAL, *(() if terms.prompts == "keep" else ("prompt",))}
    return "\n".join(value for column, value in row.items() if isinstance(value, str) and column not in silent)


def _source(image: Mapping[str, Any] | None) -> Any:
    """Bytes of a stored film, or its path; empty where there is none."""
    image = image or {}
    return image["bytes"] if image.get("bytes") is not None else image.get("path") or b""


def _identifiers(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Kinds of identifiers in the text columns of a row, names apart, which say nothing any more."""
    found: dict[str, list[str]] = {}
    for column, value in row.items():
        if column not in (*NAMES, "image") and isinstance(value, (str, list, dict)):
            strong = column in TECHNICAL or not isinstance(value, str)
            kinds = identifiers.named(str(value), strong=strong)
            found |= {column: kinds} if kinds else {}
    return found
