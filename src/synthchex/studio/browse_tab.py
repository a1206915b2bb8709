"""The tab that looks through a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from synthchex.data import records
from synthchex.studio import browse, markup, thumbs
from synthchex.studio.browse import PAGE_ROWS, Browser, Place
from synthchex.studio.events import IN_ORDER, ONCE, told
from synthchex.studio.index import ANY, NONE, ORDERS, STATES, STORED, Filter, number_of

# A click on a thumbnail says which one.
PICK = """element.addEventListener('click', (event) => {
  const cell = event.target.closest('[data-number]');
  if (cell) trigger('click', { number: Number(cell.dataset.number) });
});"""
FIELDS = ("label", "state", "quality", "reason", "score", "low", "high", "words", "order")


def build(browser: Browser, page: Any, cleaner: tuple[Any, list[Any]], tabs: Any) -> None:
    """Draw the tab and wire it."""
    place = gr.State(Place())
    with gr.Row():
        with gr.Column(scale=2, min_width=250):
            controls, apply = _controls(browser)
        with gr.Column(scale=5, min_width=380):
            counted = gr.HTML(elem_id="studio-counted")
            grid = gr.HTML(elem_id="studio-grid", js_on_load=PICK)
            with gr.Row():
                pages = [
                    (gr.Button("◀ Page", elem_id="studio-page-back", size="md", min_width=60), -PAGE_ROWS),
                    (gr.Button("Page ▶", elem_id="studio-page-next", size="md", min_width=60), PAGE_ROWS),
                ]
        with gr.Column(scale=4, min_width=340):
            with gr.Row():
                moves = [
                    (gr.Button("← Back", elem_id="studio-back", size="md", min_width=60), -1),
                    (gr.Button("Next →", elem_id="studio-next", size="md", min_width=60), 1),
                ]
            rates = _rate_buttons() if browser.ratings is not None else []
            advance = gr.Checkbox(False, label="Go on to the next film after a rating", visible=bool(rates))
            one = gr.HTML(elem_id="studio-one")
            with gr.Row():
                to_clean = gr.Button("Clean this film", size="sm", elem_id="studio-to-clean")
                look = gr.Button(
                    "Nearest real films", size="sm", elem_id="studio-near-look", visible=browser.near is not None
                )
            near = gr.HTML(elem_id="studio-near")
    outputs = [place, grid, counted, one, near]
    draw = _drawn(browser)
    in_order = {"concurrency_id": "browse", **IN_ORDER}
    page.load(draw, place, outputs, **in_order)
    gr.on(apply, _filtered(browser, draw), [place, *controls], outputs, **in_order)
    for button, by in moves:
        button.click(_moved(browser, draw, by), place, outputs, **in_order)
    for button, by in pages:
        button.click(_turned(browser, draw, by), place, outputs, **in_order)
    for button, key in rates:
        button.click(_rated(browser, draw, key), [place, advance], outputs, **in_order)
    grid.click(_picked(browser, draw), place, outputs, **in_order)
    look.click(_near(browser), place, near, concurrency_id="models", **ONCE)
    to_clean.click(_to_clean(browser, cleaner[0]), place, [tabs, *cleaner[1]], **ONCE)


def _controls(browser: Browser) -> tuple[list[Any], list[Any]]:
    """Fields of a filter, in the order of `FIELDS`, and the events that apply them."""
    index, kept = browser.index, Filter()
    labelled, scored = index.films.labels is not None, bool(index.scores)
    label = gr.Dropdown([ANY, *records.LABELS], value=kept.label, label="Label", visible=labelled)
    state = gr.Radio(list(STATES), value=kept.state, label="State of the label", visible=labelled)
    quality = gr.Dropdown(
        _choices(index.quality), value=kept.quality, label="Verdict", visible=bool(index.quality.values)
    )
    reason = gr.Dropdown(
        _choices(index.reason), value=kept.reason, label="Drop reason", visible=bool(index.reason.values)
    )
    score = gr.Dropdown([ANY, *index.scores], value=kept.score, label="Score", visible=scored)
    with gr.Row():
        low = gr.Textbox(label="From", placeholder="any", max_length=20, visible=scored, min_width=80)
        high = gr.Textbox(label="To", placeholder="any", max_length=20, visible=scored, min_width=80)
    order = gr.Radio(list(ORDERS), value=STORED, label="Order", visible=scored)
    words = gr.Textbox(label="Prompt contains", max_length=200, visible=index.prompts is not None)
    button = gr.Button("Apply", size="md", elem_id="studio-apply")
    events = [one.input for one in (label, state, quality, reason, score, order)]
    events += [low.submit, high.submit, words.submit, button.click]
    return [label, state, quality, reason, score, low, high, words, order], events


def _choices(column: Any) -> list[tuple[str, str]]:
    """Values with their counts, and those for every film and for films without one."""
    empty = int((column.codes < 0).sum())
    found = [(f"{name} ({count:,})", name) for name, count in column.counts().items()]
    return [(ANY, ANY), *found, *([(f"none ({empty:,})", NONE)] if empty else [])]


def _rate_buttons() -> list[tuple[Any, str]]:
    """One button per class, and one that takes a rating back; each with its key."""
    with gr.Row():
        found = [
            (gr.Button(f"{key} {quality}", size="sm", elem_id=f"studio-rate-{key}", min_width=110), str(key))
            for key, quality in enumerate(records.QUALITIES, 1)
        ]
        back = gr.Button("0 Take back", size="sm", elem_id="studio-rate-0", min_width=110)
    return [*found, (back, "0")]


def _drawn(browser: Browser) -> Callable[..., Any]:
    """What draws a place: its page, and the film there."""

    @told
    def draw(place: Place) -> tuple[Any, ...]:
        page, row = browser.page(place), browser.row(place)
        one = "" if row is None else markup.shown(browser.shown(row))
        return place, markup.grid(page, place.number), markup.counted(page, place), one, ""

    return draw


def _filtered(browser: Browser, draw: Callable[..., Any]) -> Any:
    @told
    def filtered(place: Place, *values: Any) -> Any:
        asked = dict(zip(FIELDS, values, strict=True))
        asked |= {end: number_of(asked[end]) for end in ("low", "high")}
        return draw(browser.moved(place, asked=Filter(**asked), number=0))

    return filtered


def _moved(browser: Browser, draw: Callable[..., Any], by: int) -> Any:
    @told
    def moved(place: Place) -> Any:
        return draw(browser.moved(place, number=place.number + by))

    return moved


def _turned(browser: Browser, draw: Callable[..., Any], by: int) -> Any:
    @told
    def turned(place: Place) -> Any:
        return draw(browser.moved(place, number=place.page * PAGE_ROWS + by))

    return turned


def _rated(browser: Browser, draw: Callable[..., Any], key: str) -> Any:
    @told
    def rated(place: Place, advance: bool) -> Any:
        row, quality = browser.row(place), browse.key_of(key)
        if row is None or quality is None:
            raise ValueError("expected a film to rate, got none; widen the filter")
        browser.rate(row, quality)
        return draw(browser.moved(place, number=place.number + bool(advance and quality)))

    return rated


def _picked(browser: Browser, draw: Callable[..., Any]) -> Any:
    @told
    def picked(place: Place, event: gr.EventData) -> Any:
        return draw(browser.moved(place, number=int(event.number)))

    return picked


def _near(browser: Browser) -> Any:
    @told
    def near(place: Place, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        row = browser.row(place)
        if row is None or browser.near is None:
            raise ValueError("expected a film and a real set, got none; widen the filter")
        if not browser.near.ready:
            progress(0, desc="encoding the real films, once")
        found, pixels = browser.neighbours(row), browser.pixels(row)
        return markup.near(found, browser.near.name, thumbs.large(pixels, 512))

    return near


def _to_clean(browser: Browser, looked: Any) -> Any:
    @told
    def to_clean(place: Place) -> Any:
        row = browser.row(place)
        if row is None:
            raise ValueError("expected a film, got none; widen the filter")
        return (gr.Tabs(selected="clean"), *looked(browser.index.films.ids[row], browser.pixels(row)))

    return to_clean
