"""HTML of the page: films, tables, bars, boxes on films. Every text from outside is escaped here; knows no Gradio.

Films stand in the page as data, so that none of them is a file that a route could give away.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from synthchex.data import images
from synthchex.data.records import QUALITIES
from synthchex.studio import clean, generate
from synthchex.studio.browse import PAGE_ROWS, Page, Place, Shown
from synthchex.studio.generate import Made
from synthchex.studio.neighbours import Near
from synthchex.textmask import Cleaned

STATE_WORDS = {1: "present", 0: "absent", -1: "uncertain"}


def data_uri(encoded: bytes, kind: str) -> str:
    """Bytes as an address."""
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def film(encoded: bytes, alt: str, kind: str = "image/png") -> str:
    """A film."""
    return f'<img class="film" src="{data_uri(encoded, kind)}" alt="{escape(alt)}">'


def note(text: str, kind: str = "quiet") -> str:
    """A sentence; `kind` is quiet, good, bad."""
    return f'<p class="note {kind}">{escape(text)}</p>'


def notes(lines: Sequence[str], good: str) -> str:
    """Findings as a list, or that there are none."""
    if not lines:
        return note(good, "good")
    return '<ul class="note bad">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A table whose first `names` columns are words and the others numbers."""
    head = "".join(f'<th class="{"" if at < names else "n"}">{escape(name)}</th>' for at, name in enumerate(columns))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"" if place < names else "n"}">{escape(cell)}</td>' for place, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table class="facts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def bars(values: Sequence[tuple[str, float]]) -> str:
    """Names, values in [0, 1] and a bar for each."""
    lines = [
        f'<div class="bar"><span>{escape(name)}</span><i style="--v:{100 * min(max(value, 0), 1):.1f}%"></i>'
        f"<b>{value:.3f}</b></div>"
        for name, value in values
    ]
    return f'<div class="bars">{"".join(lines)}</div>'


def verdict(quality: str | None, reason: str | None) -> str:
    """The judge's class, and why a film is dropped."""
    named = (
        f'<span class="tag q{QUALITIES.index(quality) + 1}">{escape(quality)}</span>' if quality in QUALITIES else ""
    )
    why = f'<span class="tag bad">{escape(reason)}</span>' if reason else ""
    return named + why or '<span class="tag">no verdict</span>'


def made(films: Sequence[Made], asked: int) -> str:
    """Cards of generated films, each with what judges say of it and its downloads."""
    cards = [_card(one) for one in films]
    cards += ['<div class="card empty"><div class="film"></div></div>' for _ in range(asked - len(films))]
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(one: Made) -> str:
    name = str(one.row["id"])
    if one.png is None:
        return f'<div class="card"><div class="film">{escape(str(one.row["drop_reason"]))}</div></div>'
    told = '<span class="tag">no judge</span>'
    if one.verdict is not None:
        told = verdict(one.verdict.quality, one.verdict.reason)
    defect = f'<span class="tag bad">{escape(str(one.row["drop_reason"]))}</span>' if one.row["drop_reason"] else ""
    likely = sorted(one.probabilities.items(), key=lambda pair: -pair[1])
    json_uri = data_uri(generate.provenance(one).encode(), "application/json")
    png_uri = data_uri(one.png, "image/png")
    scores = generate.verdict_facts(one)
    labels = bars(likely) if likely else note("No label classifier for this recipe.")
    return (
        f'<div class="card">{film(one.png, one.row["prompt"])}<div class="line">{told}{defect}</div>'
        f'<div class="line mono">{escape(name)} · seed {one.row["seed"]}</div>'
        f'<div class="line"><a download="{escape(one.row["filename"])}" href="{png_uri}">PNG</a>'
        f'<a download="{escape(name)}.json" href="{json_uri}">provenance JSON</a></div>'
        + (f"<h4>Judge</h4>{bars(scores)}" if scores else "")
        + f"<h4>Label probabilities</h4>{labels}</div>"
    )


def grid(page: Page, chosen: int) -> str:
    """A page of thumbnails; each says its number in `data-number`."""
    if not page.cells:
        return note("No film is let through; widen the filter.", "bad")
    cells = []
    for one in page.cells:
        picture = (
            f'<img src="{data_uri(one.thumb.encoded, "image/jpeg")}" alt="" loading="lazy">'
            if one.thumb.encoded is not None
            else f"<em>{escape(one.thumb.reason)}</em>"
        )
        mark = f"q{QUALITIES.index(one.verdict) + 1}" if one.verdict in QUALITIES else "q0"
        rated = (
            f'<u class="q{QUALITIES.index(one.rated) + 1}">{QUALITIES.index(one.rated) + 1}</u>' if one.rated else ""
        )
        score = "" if one.score is None else f"{one.score:.3f}"
        said = escape(", ".join(filter(None, (one.name, one.verdict, one.reason))))
        cells.append(
            f'<button type="button" class="thumb {mark}{" chosen" if one.number == chosen else ""}" title="{said}" '
            f'data-number="{one.number}">{picture}{rated}<span><bdi>{score or escape(one.name)}</bdi></span></button>'
        )
    return f'<div class="grid">{"".join(cells)}</div>'


def counted(page: Page, place: Place) -> str:
    """Which films of how many."""
    first = page.number * PAGE_ROWS + 1
    shown = f"{first:,} to {first + len(page.cells) - 1:,}" if page.cells else "none"
    return (
        f'<p class="note mono" data-turn="{place.turn}">films {shown} of {page.found:,}'
        f" · page {page.number + 1:,} of {page.pages:,}"
        + (f" · at {place.number + 1:,}" if page.found else "")
        + "</p>"
    )


def shown(one: Shown) -> str:
    """One film, large, with all that is known of it."""
    picture = (
        film(one.png, one.prompt or one.name) if one.png is not None else note(f"cannot be read: {one.why}", "bad")
    )
    rated = (
        f'<span class="tag q{QUALITIES.index(one.rated) + 1}">you: {escape(one.rated)}</span>'
        if one.rated in QUALITIES
        else '<span class="tag">not rated by you</span>'
    )
    labels = [(label, STATE_WORDS[state]) for label, state in one.labels.items() if state in (1, -1)]
    facts = [(name, f"{value:.4g}") for name, value in one.facts.items()]
    made_by = [(name, value) for name, value in one.made.items()]
    parts = [
        f'<div class="line">{verdict(one.verdict, one.reason)}{rated}</div>',
        f'<div class="line mono">{escape(one.name)}</div>',
        f'<p class="prompt">{escape(one.prompt)}</p>' if one.prompt else "",
        *(table(head, rows) for head, rows in ((("Label", "State"), labels), (("Score", ""), facts)) if rows),
        f"<details><summary>Provenance</summary>{table(('', ''), made_by)}</details>" if made_by else "",
    ]
    return f'<div class="one">{picture}<div>{"".join(parts)}</div></div>'


def near(found: Sequence[Near], encoder: str, of: bytes | None) -> str:
    """A film beside the nearest real films, or beside their distances alone where they may not be shown."""
    cards = [f'<div class="card">{film(of, "this film")}<div class="line">this film</div></div>'] if of else []
    cards += [
        f'<div class="card">{film(one.png, "real film") if one.png is not None else ""}'
        f'<div class="line mono">{one.distance:.3f}{" · " + escape(one.name) if one.name else ""}</div></div>'
        for one in found
    ]
    hidden = note("The real films are not open: their distances are shown, not the films.") if cards else ""
    return (
        f'<h4>Nearest real films, distance in {escape(encoder)}</h4><div class="cards near">{"".join(cards)}</div>'
        + (hidden if found and found[0].png is None else "")
    )


def overlay(found: clean.Found, chosen: Sequence[bool]) -> str:
    """A film with the boxes of its texts: full lines around those to erase, broken ones around those that stay."""
    height, width = found.pixels.shape[:2]
    size = max(height, width) / 40
    marks = []
    for number, (text, mark) in enumerate(zip(found.texts, chosen, strict=True), 1):
        left, top, right, bottom = text.box
        kind = "erase" if mark else "keep"
        marks.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
            f'<text class="{kind}" x="{left}" y="{max(top - size / 4, size)}" font-size="{size:.1f}">{number}</text>'
        )
    uri = data_uri(images.to_png(found.pixels), "image/png")
    return (
        f'<svg class="film boxes" viewBox="0 0 {width} {height}" role="img" aria-label="film with boxes of text">'
        f'<image href="{uri}" width="{width}" height="{height}"/>{"".join(marks)}</svg>'
    )


def before_after(done: Cleaned, before: Any) -> str:
    """Both films over each other, divided by a slider."""
    first, second = (data_uri(images.to_png(pixels), "image/png") for pixels in (before, done.pixels))
    move = "this.parentNode.style.setProperty('--cut', this.value + '%')"
    return (
        f'<div class="cut" style="--cut:50%"><img src="{second}" alt="after">'
        f'<img class="over" src="{first}" alt="before">'
        f'<input type="range" min="0" max="100" value="50" aria-label="before and after" oninput="{move}">'
        '<span class="left">before</span><span class="right">after</span></div>'
    )


def framed(page: str) -> str:
    """A report in a frame of its own, that reaches neither this page nor any file."""
    return f'<iframe class="report" sandbox="allow-scripts" srcdoc="{escape(page)}" title="report"></iframe>'


def counts(values: Mapping[str, int]) -> str:
    """Names and how many, in one line."""
    return ", ".join(f"{name} {count:,}" for name, count in values.items())
