"""A listing of films as shards of records: which films, what of them is kept, one row for each. Prints nothing.

Films keep the bytes of their files; DICOM, and with `deep_films` whatever is deeper than 8 bits, is read by
`images.read` and kept as PNG. With `reference_only` a row holds the film's absolute path instead: for trees too large
to copy, on this machine only.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from synthchex.data import film, images, records, shards, tables
from synthchex.data.importers import labellers
from synthchex.data.importers.listing import COLUMNS, Listing, files_below

if TYPE_CHECKING:
    from datasets import Features

Text = Literal["findings", "impression", "both"]
# DICOM films of 3000 x 2500 pixels are PNG of 4 MB: 64 of them make a row group of 256 MB.
SHARD_ROWS, REFERENCE_ROWS = 64, 4096
DICOM = (".dcm", ".dicom")
TEXTS = ("id", "patient", "study", "view", "split", "source_policy", "content_hash", "preprocessing_id", "drop_reason")


@dataclass(frozen=True)
class How:
    """What to keep: which text is the prompt, films or their paths, and of which splits and views (all where empty).

    `unchecked` films are kept without being decoded, DICOM apart; with `reference_only` they are not even opened.
    `deep_films` is a policy of `images.read`, by which all films become 8 bits; None leaves all but DICOM as they are.
    """

    text: Text = "both"
    reference_only: bool = False
    unchecked: bool = False
    labeller: str | None = None
    deep_films: film.Deep | None = None
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.deep_films and self.reference_only:
            raise ValueError("--deep-films writes films anew, --reference-only keeps none; leave one of them out")


@dataclass(frozen=True)
class Chosen:
    """Films that are there and wanted: their cells by column, labels, how to get them, and the rows left out."""

    columns: Mapping[str, Sequence[str | None]]
    labels: np.ndarray | None
    fetch: Callable[[int], Any]
    left_out: Mapping[str, int]
    missing: Sequence[str]

    def __len__(self) -> int:
        return len(self.columns["id"])


def features() -> Features:
    """Types of an imported record: the four columns of every set, then who, which study, view and split, under which
    source policy, hash of the stored bytes, how it was read, and why it has no image.
    """
    from datasets import Features, Value

    return Features(records.features(provenance=False) | {name: Value("string") for name in TEXTS})


def choose(listing: Listing, base: Path, how: How) -> Chosen:
    """Films of the wanted splits and views whose files are there; the others are counted.

    Raises:
        ValueError: a split or view that no film has, no film that is there, or --reference-only for films that are no
            files.
    """
    left_out = Counter(listing.left_out)
    kept = list(range(len(listing)))
    for column, wanted in (("split", how.splits), ("view", how.views)):
        if wanted:
            kept = _among(listing.columns[column], wanted, column, kept, left_out)
    if listing.fetch is not None:
        if how.reference_only:
            raise ValueError("--reference-only expects films that are files, got films inside a dataset; leave it out")
        fetch, missing = listing.fetch, list[str]()
    else:
        names = [str(listing.columns["name"][row]) for row in kept]
        paths = locate(names, base, flat=listing.flat)
        missing = [name for name, path in zip(names, paths, strict=True) if path is None]
        if missing:
            left_out["film-missing"] += len(missing)
        if len(missing) == len(names):
            raise ValueError(
                f"expected the film of every row in {base}, got 0 of {len(names)}, e.g. {missing[0]!r} is not there; "
                "give the folder that film names are relative to with --image-dir"
            )
        files = {row: path for row, path in zip(kept, paths, strict=True) if path is not None}
        kept, fetch = list(files), files.__getitem__
    columns = {name: [listing.columns[name][row] for row in kept] for name in COLUMNS}
    labels = None if listing.labels is None else listing.labels[kept]
    return Chosen(columns, labels, lambda row: fetch(kept[row]), dict(left_out), missing)


def _among(
    cells: Sequence[str | None], wanted: Sequence[str], what: str, kept: Sequence[int], left_out: Counter[str]
) -> list[int]:
    there = {cells[row] for row in kept}
    unknown = [value for value in wanted if value not in there]
    if unknown:
        raise ValueError(
            f"expected a {what} among {sorted(str(value) for value in there)}, got {unknown}; "
            "None is a film whose table says none, as where only its DICOM header does"
        )
    found = [row for row in kept if cells[row] in wanted]
    left_out[f"other-{what}"] += len(kept) - len(found)
    return found


def locate(names: Sequence[str], base: Path, *, flat: bool) -> list[Path | None]:
    """The file of each name: below `base` as it is named, or with another image suffix; None where there is none.

    Args:
        names: of files, relative to `base`.
        base: folder.
        flat: names without folders are also looked for anywhere below `base`; a name found twice is no file's.
    """
    order = sorted(images.SUFFIXES)
    paths: list[Path | None] = []
    for name in names:
        found = base / name
        if not found.is_file():
            stem = base / tables.film_stem(name)
            suffix = next((s for s in order if stem.with_name(stem.name + s).is_file()), None)
            if suffix is not None:
                # The next film most likely has the suffix of this one.
                order.remove(suffix)
                order.insert(0, suffix)
                found = stem.with_name(stem.name + suffix)
        paths.append(found if found.is_file() else None)
    if flat and None in paths:
        stems = _stems(base)
        paths = [path or stems.get(tables.film_stem(name)) for name, path in zip(names, paths, strict=True)]
    return paths


def _stems(base: Path) -> dict[str, Path]:
    """Films below a folder by stem; a stem that stands twice is left out."""
    found: dict[str, Path] = {}
    twice: set[str] = set()
    for path in files_below(base):
        stem = tables.film_stem(path.name)
        if stem != path.name:
            twice |= {stem} & found.keys()
            found[stem] = path
    return {stem: path for stem, path in found.items() if stem not in twice}


def prompts(columns: Mapping[str, Sequence[str | None]], text: Text) -> tuple[list[str | None], dict[str, int]]:
    """The prompt of every film, and from what it is: the section asked for, or findings then impression; the whole
    text where a set has no sections.
    """
    wanted = ("findings", "impression") if text == "both" else (text,)
    found: list[str | None] = []
    sources: Counter[str] = Counter()
    for row in range(len(columns["id"])):
        sections = [name for name in wanted if columns[name][row]]
        if not sections and text == "both" and columns["report"][row]:
            sections = ["report"]
        sources["+".join(sections) or "none"] += 1
        found.append(" ".join(str(columns[name][row]) for name in sections) or None)
    return found, dict(sources)


def plan(name: str, policy: str, terms: str, listing: Listing, chosen: Chosen, how: How, unlisted: str) -> shards.Plan:
    """What is to be written; another table, film list or option is another plan."""
    digest = hashlib.sha256()
    for row in zip(*(chosen.columns[column] for column in COLUMNS), strict=True):
        digest.update(repr(row).encode())
    if chosen.labels is not None:
        digest.update(np.ascontiguousarray(chosen.labels).tobytes())
    recipe = {
        "importer": name,
        "source_policy": policy,
        "terms": terms,
        "text": how.text,
        "labels_from": f"labeller {how.labeller}" if how.labeller else listing.labels_from,
        "unlisted": unlisted,
        "reference_only": how.reference_only,
        "unchecked": how.unchecked,
        **({"deep_films": how.deep_films} if how.deep_films else {}),
        "splits": list(how.splits),
        "views": list(how.views),
    }
    rows = REFERENCE_ROWS if how.reference_only else SHARD_ROWS
    return shards.Plan("import", f"{name} {digest.hexdigest()[:16]}", len(chosen), rows, recipe)


def fill(out: Path, a_plan: shards.Plan, chosen: Chosen, how: How, *, quiet: bool) -> None:
    """Write the shards that are missing; any number of processes may do so at once."""
    labeller = labellers.load(how.labeller) if how.labeller else None
    texts, _ = prompts(chosen.columns, how.text)
    policy = str(a_plan.recipe["source_policy"])
    rows = partial(_rows, chosen=chosen, texts=texts, policy=policy, how=how, labeller=labeller)
    shards.begin(out, a_plan)
    shards.fill(out, a_plan, rows, features(), unit="films", quiet=quiet)


def _rows(
    span: range,
    *,
    chosen: Chosen,
    texts: Sequence[str | None],
    policy: str,
    how: How,
    labeller: labellers.Labeller | None,
) -> list[dict[str, Any]]:
    said = labellers.label(labeller, [texts[row] for row in span]) if labeller is not None else None
    rows = []
    for place, index in enumerate(span):
        cells = {name: chosen.columns[name][index] for name in ("id", "patient", "study", "view", "split")}
        film = _film(chosen.fetch(index), tables.film_stem(str(cells["id"])).replace("/", "_"), how)
        cells["view"] = cells["view"] or film.pop("view", None)
        labels = said[place] if said is not None else _states(chosen.labels, index)
        rows.append({"prompt": texts[index], "labels_dict": labels, "source_policy": policy, **film, **cells})
    return rows


def _states(labels: np.ndarray | None, row: int) -> dict[str, int | None]:
    return records.labels_dict(None if labels is None else dict(zip(records.LABELS, labels[row].tolist(), strict=True)))


def _film(source: Any, stem: str, how: How) -> dict[str, Any]:
    """Image and what reading it told: filename, content_hash, preprocessing_id, view, or drop_reason without image."""
    named = source.get("path") if isinstance(source, Mapping) else source if isinstance(source, Path) else None
    suffix = Path(named or "film.png").suffix.lower()
    try:
        if how.unchecked and how.reference_only:
            return _reference(source, f"{stem}{suffix}")
        encoded = images.encoded(source)
        dicom = encoded[128:132] == b"DICM" or suffix in DICOM
        known: dict[str, Any] = {"content_hash": images.content_hash(encoded)}
        as_png = dicom
        if dicom or how.deep_films or not how.unchecked:
            read = images.read(source if dicom else encoded, deep=how.deep_films or "minmax")
            known["preprocessing_id"] = read.preprocessing
            as_png = dicom or (how.deep_films is not None and read.preprocessing != "u8")
            if dicom:
                known["view"] = _header_view(encoded)
    except images.UnreadableImage as error:
        return {"filename": f"{stem}{suffix}", "image": None, "drop_reason": f"unreadable-{error.reason}"}
    if how.reference_only:
        return _reference(source, f"{stem}{suffix}") | known
    if as_png:
        suffix, encoded = ".png", images.to_png(read.pixels)
        # Equal pixels under different headers are the same film.
        known["content_hash"] = images.content_hash(encoded)
    name = f"{stem}{suffix}"
    return {"filename": name, "image": {"bytes": encoded, "path": name}, **known}


def _reference(source: Path, name: str) -> dict[str, Any]:
    return {"filename": name, "image": {"bytes": None, "path": str(source.absolute())}}


def _header_view(encoded: bytes) -> str | None:
    from synthchex.extras import require

    pydicom = require("pydicom", extra="dicom")
    header = pydicom.dcmread(io.BytesIO(encoded), stop_before_pixels=True, specific_tags=["ViewPosition"], force=True)
    return str(header.get("ViewPosition") or "").strip() or None
