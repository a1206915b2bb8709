"""What a page is made of, and how it becomes one HTML file. Knows nothing of scores.

    write_page(path, Page("Three models", [Section("ranks", "Ranks", [Table("Leaderboard", "", columns, rows)])]))

Any command that has a table to show uses this; `page` puts the report of one evaluation together from it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from synthchex.report.canvas import DARK, LIGHT, Plot
from synthchex.report.text import ABSENT


class Cell(NamedTuple):
    """A cell that is more than its text: a second, smaller line, or a state that spans several columns."""

    text: str
    small: str = ""
    width: int = 1


class Column(NamedTuple):
    """A column title, and how its cells look: numbers to the right; `text`, `note` and `code` to the left, wrapped."""

    title: str
    kind: Literal["number", "value", "quiet", "flag", "text", "note", "code"] = "number"


class Rows(NamedTuple):
    """Rows that belong together under a line of their own, such as those of one encoder; `title` may be empty."""

    title: str
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True)
class Table:
    """A table of text. The first cell of a row names it. `note` stands in the caption, after the title."""

    kind: ClassVar[str] = "table"
    title: str
    note: str
    columns: Sequence[Column]
    groups: Sequence[Rows]

    def compact(self) -> Table:
        """The table without the columns that hold nothing in any row."""
        rows = [spread(row) for group in self.groups for row in group.rows]
        used = [any(row[i] not in ("", ABSENT, None) for row in rows) for i in range(len(self.columns))]
        used[0] = True
        columns = [column for column, wanted in zip(self.columns, used, strict=True) if wanted]
        groups = [Rows(group.title, [_without(row, used) for row in group.rows]) for group in self.groups]
        return Table(self.title, self.note, columns, groups)


def spread(row: Sequence[str | Cell]) -> list[str | None]:
    """The text of a row by column; None under a cell that spans columns, after its first."""
    texts: list[str | None] = []
    for cell in row:
        texts += [cell.text, *[None] * (cell.width - 1)] if isinstance(cell, Cell) else [cell]
    return texts


def _without(row: Sequence[str | Cell], used: Sequence[bool]) -> list[str | Cell]:
    kept: list[str | Cell] = []
    place = 0
    for cell in row:
        width = cell.width if isinstance(cell, Cell) else 1
        left = sum(used[place : place + width])
        if left:
            kept.append(cell._replace(width=left) if isinstance(cell, Cell) else cell)
        place += width
    return kept


@dataclass(frozen=True)
class Text:
    """Paragraphs. With `copy`, an id, a button copies them."""

    kind: ClassVar[str] = "text"
    paragraphs: Sequence[str]
    copy: str = ""
    small: bool = False


@dataclass(frozen=True)
class Code:
    """Text that is shown letter by letter. With `copy`, an id, a button copies it."""

    kind: ClassVar[str] = "code"
    text: str
    copy: str = ""


@dataclass(frozen=True)
class Heading:
    """A title inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Plots:
    """Figures side by side where there is room."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]


class Picture(NamedTuple):
    """A film as it is shown: data URI, colour of its edge, first line of its caption (`short` where that is long),
    short facts, the alternative text.
    """

    source: str
    role: Literal["reference", "synthetic", "rejected"]
    caption: str
    short: str
    facts: Sequence[str]
    alt: str


@dataclass(frozen=True)
class Group:
    """Films under one title, and how many there are beyond those shown."""

    title: str
    pictures: Sequence[Picture]
    total: int


@dataclass(frozen=True)
class Films:
    """Groups of films: `sheet`, one group under the other; `strip`, the same in one line each; `row`, groups of three
    films beside each other; `pairs`, groups of four films that are compared.
    """

    kind: ClassVar[str] = "films"
    groups: Sequence[Group]
    layout: Literal["sheet", "strip", "row", "pairs"] = "sheet"


@dataclass(frozen=True)
class Drawer:
    """Blocks that a reader opens."""

    kind: ClassVar[str] = "drawer"
    title: str
    blocks: Sequence[Block]
    open: bool = False


@dataclass(frozen=True)
class Drawers:
    """Drawers that one button opens."""

    kind: ClassVar[str] = "drawers"
    drawers: Sequence[Drawer]


Block = Table | Text | Code | Heading | Plots | Films | Drawer | Drawers


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in the contents; `id` is unique on the page."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """Title, sections, and what stands above them: a line of facts, a banner, the main findings, warnings."""

    title: str
    sections: Sequence[Section]
    facts: Sequence[str] = ()
    banner: str = ""
    summary: Sequence[str] = ()
    warnings: Sequence[str] = ()
    footer: Sequence[str] = field(default=("Self-contained: this page loads nothing from the network.",))


def write_page(path: Path, page: Page) -> Path:
    """Writes the page to a temporary file beside `path`, then renames it. Sections without blocks are left out."""
    text = render(page)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="replace")
    return temporary.replace(path)


def render(page: Page) -> str:
    """The page as HTML. Strings are escaped; the one script of the page is allowed by its hash and no other."""
    import jinja2

    folder = resources.files(__package__)
    files = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir() if item.name.endswith(".j2")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(files),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = files["script.js.j2"]
    values: dict[str, Any] = {
        "page": page,
        "sections": [section for section in page.sections if section.blocks],
        "style": environment.get_template("style.css.j2").render(light=LIGHT, dark=DARK),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment.get_template("page.html.j2").render(values)
