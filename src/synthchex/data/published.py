"""Published datasets that `load_dataset` no longer reads, as they were downloaded, as feeds of films.

SynthCheX-75K is a zip of images, a table and a loading script; its second version is Parquet with pixels as nested
lists. Both are read where they lie, on a disk or on the Hub: no zip is unpacked, no row group is held whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from synthchex.data import feeds, images, pixels, records, tables

TABLES = (".csv", ".tsv", ".jsonl")
QUALITY = ("quality", "image quality", "image_quality")
UNPARSED = "unparsed_verdict"
ZIP = ".zip"
MAX_FILM_BYTES = 286 * 2**20


class Entry(NamedTuple):
    """A file of a published set: where it is, its size, and what changes with its content.

    `stamp` is the CRC of a file in a zip, the time of change of one on a disk, the hash of one on the Hub.
    """

    archive: str | None
    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Place:
    """A folder or zip, local or with a protocol (hf://datasets/org/name), and the files in it, those of zips included.

    A file in a zip is named by its name there.
    """

    source: str
    system: Any
    root: str
    entries: Sequence[Entry]
    archives: dict[str, zipfile.ZipFile] = field(default_factory=dict)

    def read(self, entry: Entry) -> bytes:
        """Content of a file.

        Raises:
            UnreadableImage: it is damaged, encrypted or larger than any film.
        """
        if entry.size > MAX_FILM_BYTES:
            raise images.UnreadableImage("too-large", f"expected at most {MAX_FILM_BYTES} bytes, got {entry}")
        if entry.archive is None:
            return bytes(self.system.cat_file(f"{self.root}/{entry.name}"))
        try:
            return self.archive(entry.archive).read(entry.name)
        except zipfile.BadZipFile as error:
            raise images.UnreadableImage("truncated", f"expected a whole file, got {entry.name}: {error}") from error
        except (RuntimeError, NotImplementedError) as error:
            raise images.UnreadableImage("encrypted", f"expected a plain file, got {entry.name}: {error}") from error

    def archive(self, name: str) -> zipfile.ZipFile:
        """An open zip; one is opened once."""
        if name not in self.archives:
            self.archives[name] = _zip(self.system, name)
        return self.archives[name]


def look(source: str | Path) -> Place:
    """List a folder or zip.

    Raises:
        ValueError: it is not there, or a zip is damaged.
    """
    from fsspec.core import url_to_fs

    system, root = url_to_fs(str(source))
    if not system.exists(root):
        raise ValueError(f"expected a folder or zip, got {source}, which is not there; check the path")
    found = [system.info(root)] if system.isfile(root) else list(system.find(root, detail=True).values())
    base = str(PurePosixPath(root).parent) if system.isfile(root) else root.rstrip("/")
    entries = []
    for info in found:
        name = os.path.relpath(info["name"], base)
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        if name.lower().endswith(ZIP):
            inside = _zip(system, info["name"]).infolist()
            entries += [Entry(info["name"], i.filename, i.file_size, f"{i.CRC:08x}") for i in inside if _is_file(i)]
        else:
            said = [str(info[key]) for key in ("mtime", "blob_id", "etag", "ETag", "sha256") if info.get(key)]
            entries.append(Entry(None, name, int(info["size"] or 0), " ".join(said)))
    if system.isfile(root) and entries and not any(entry.name.lower().endswith(TABLES) for entry in entries):
        return _beside(str(source), system, root, entries)
    return Place(str(source), system, base, sorted(entries, key=lambda entry: entry.name))


def content_hash(source: str | Path) -> str:
    """Hash of what a set holds, 16 hex digits, without reading its films.

    Catches any change of a film in a zip (its CRC), of a table (its content), of a film or shard in a folder (its size
    or its time of change), and files that come or go. Misses a film in a folder that was replaced by one of equal size
    and whose time was set back.
    """
    return _hash(look(source))


def _hash(place: Place) -> str:
    parts: list[Any] = [[entry.name, entry.size, entry.stamp] for entry in place.entries if not _is_table(entry)]
    parts += [hashlib.sha256(place.read(entry)).hexdigest() for entry in place.entries if _is_table(entry)]
    return records.fingerprint(parts)


def open_published(source: str | Path, *, columns: Mapping[str, str] | None = None) -> feeds.Feed:
    """A feed of a published set: shards of our record, Parquet with films as bytes or pixels, or a table beside a zip
    or a folder of images.

    Args:
        source: a folder or a zip, local or with a protocol.
        columns: names of columns where they differ from the known aliases, by role.

    Raises:
        ValueError: nothing readable there, no table or several, unknown columns, no file for any row.
    """
    path = Path(source)
    if path.is_dir() and tables.is_dataset_folder(path):
        return _open_parquet(path, columns)
    place = look(source)
    found = [table for table in map(partial(_table, place), filter(_is_table, place.entries)) if _fits(table, columns)]
    if len(found) != 1:
        raise ValueError(
            f"expected one table of films and prompts in {source}, got {len(found)} "
            f"({[table.source for table in found] or 'its tables have no such columns'}); leave one, or name its "
            "columns with --columns"
        )
    return _from_table(place, found[0], columns)


def _from_table(place: Place, table: tables.Table, columns: Mapping[str, str] | None) -> feeds.Feed:
    roles = tables.resolve(table, columns, needed=("image", "prompt"), optional=("labels", "patient"), side="synthetic")
    names = [str(name) for name in table.column(roles["image"])]
    where = _find([entry for entry in place.entries if not _is_table(entry)], names)
    if not any(where):
        raise ValueError(f"expected the films of {table.source} in {place.source}, got none, e.g. {names[:3]}")
    labels = tables.label_states(table, roles.get("labels"))
    known: dict[str, Sequence[Any]] = {"prompt": table.column(roles["prompt"])}
    known |= {"patient": table.column(roles["patient"])} if "patient" in roles else {}
    known |= {name: table.column(name) for name in table.columns if name in (*records.VERDICT_COLUMNS, "source_policy")}
    known |= _verdicts(table)

    def record(row: int) -> dict[str, Any]:
        stem = tables.film_stem(PurePosixPath(names[row]).as_posix()).replace("/", "_")
        states = None if labels is None else dict(zip(records.LABELS, labels[row], strict=True))
        return {
            "filename": f"{stem}.png",
            "labels_dict": records.labels_dict(states),
            **{name: values[row] or None for name, values in known.items()},
        }

    def film(row: int) -> bytes | None:
        entry = where[row]
        return None if entry is None else place.read(entry)

    doubled = len(names) - len(set(names))
    notes = {"missing": sum(entry is None for entry in where), "image-repeated": doubled}
    fingerprint = records.fingerprint([_hash(place), columns])
    return feeds.from_rows(place.source, len(names), fingerprint, ("labels_dict", *known), record, film, notes)


def _verdicts(table: tables.Table) -> dict[str, list[Any]]:
    """Qualities as a judge put them, as classes; an answer that names none or several is a reason for dropping."""
    column = next((name for name in table.columns if name.strip().lower() in QUALITY), None)
    if column is None or "drop_reason" in table.columns:
        return {}
    answers = [str(answer or "") for answer in table.column(column)]
    named = [[q for q in records.QUALITIES if q.lower() in answer.lower()] for answer in answers]
    quality = [found[0] if len(found) == 1 else None for found in named]
    reason = [
        None if q in records.KEPT_QUALITIES or not answer.strip() else q.lower().replace(" ", "_") if q else UNPARSED
        for q, answer in zip(quality, answers, strict=True)
    ]
    return {"quality": quality, "drop_reason": reason}


def _find(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry | None]:
    """The file of each name: of that path, else the only one of that file name, else of that stem."""
    paths = {entry.name: entry for entry in entries}
    files, stems = _unique(entries, lambda name: name), _unique(entries, tables.film_stem)

    def one(name: str) -> Entry | None:
        last = PurePosixPath(name).name
        return paths.get(name) or files.get(last) or stems.get(tables.film_stem(last)) if last else None

    return [one(name) for name in names]


def _unique(entries: Sequence[Entry], key: Any) -> dict[str, Entry]:
    keys = [key(PurePosixPath(entry.name).name) for entry in entries]
    counts = Counter(keys)
    return {name: entry for name, entry in zip(keys, entries, strict=True) if counts[name] == 1}


def _table(place: Place, entry: Entry) -> tables.Table:
    suffix = PurePosixPath(entry.name.lower()).suffix
    return tables.text_table(io.BytesIO(place.read(entry)), suffix, entry.name)


def _fits(table: tables.Table, columns: Mapping[str, str] | None) -> bool:
    """Whether a table names films and prompts."""
    known = {name.strip().lower() for name in table.columns}
    return all(
        (columns or {}).get(role) in table.columns or known & set(tables.ALIASES[role]) for role in ("image", "prompt")
    )


def _is_table(entry: Entry) -> bool:
    return entry.name.lower().endswith(TABLES) and not PurePosixPath(entry.name).name.startswith(".")


def _is_file(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    return not info.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _beside(source: str, system: Any, root: str, entries: Sequence[Entry]) -> Place:
    """A zip without a table, with the tables that lie beside it."""
    base = str(PurePosixPath(root).parent)
    beside = [info for info in system.ls(base, detail=True) if info["name"].lower().endswith(TABLES)]
    own = [Entry(None, os.path.relpath(info["name"], base), int(info["size"]), "") for info in beside]
    return Place(source, system, base, sorted([*entries, *own], key=lambda entry: entry.name))


def _zip(system: Any, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(system.open(name, "rb"))
    except zipfile.BadZipFile as error:
        raise ValueError(f"expected a whole zip, got {name}: {error}; download it again") from error


def _open_parquet(path: Path, columns: Mapping[str, str] | None) -> feeds.Feed:
    if not columns and feeds.is_record(path):
        return feeds.from_shards(path)
    found = pixels.open_pixels(path, columns)
    return feeds.open_feed(path, columns=columns) if found is None else found
