"""The tab that erases burned-in text."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from synthchex.data import images
from synthchex.studio import clean, markup
from synthchex.studio.events import ONCE, told
from synthchex.studio.generate import Made
from synthchex.studio.parts import Studio

FILES = [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm"]
EMPTY = "Upload a film, take one that was made here, or choose “Clean this film” in Browse."


def build(studio: Studio, made: Any) -> tuple[Any, list[Any]]:
    """Draw the tab and wire it; the function that takes a film's name and pixels, and what it writes to."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = gr.UploadButton(
                "Upload a film", file_types=FILES, type="filepath", size="md", elem_id="studio-upload"
            )
            film = gr.Dropdown([], label="Film made here", interactive=True, elem_id="studio-made-film")
            status = gr.HTML(markup.note(EMPTY), elem_id="studio-clean-status")
            texts = gr.CheckboxGroup([], label="Texts to erase", elem_id="studio-texts", visible=False)
            erase = gr.Button("Erase", variant="primary", size="md", elem_id="studio-erase")
        with gr.Column(scale=3, min_width=300):
            overlay = gr.HTML(elem_id="studio-overlay")
        with gr.Column(scale=3, min_width=300):
            after = gr.HTML(elem_id="studio-after")
    state = gr.State(None)
    outputs = [state, overlay, texts, status, after]
    made.change(_choices, made, film, show_progress="hidden", api_visibility="private")
    film.input(_take(studio), [made, film], outputs, **ONCE)
    upload.upload(_upload(studio), upload, outputs, **ONCE)
    texts.input(told(_redraw), [state, texts], overlay, show_progress="hidden", api_visibility="private")
    erase.click(_erase(studio), [state, texts], [after, status], **ONCE)
    return _looked(studio), outputs


def _choices(made: list[Made]) -> Any:
    return gr.Dropdown(choices=[one.row["id"] for one in made if one.png is not None], value=None)


def _looked(studio: Studio) -> Any:
    """What shows a film and the texts that are found on it."""

    def looked(name: str, pixels: Any) -> tuple[Any, ...]:
        found = clean.detect(name, pixels, studio.tools.detector)
        proposed = found.proposed()
        count = len(found.texts)
        said = f"{name}: {count} {'text' if count == 1 else 'texts'} found" if count else f"{name}: no text found"
        box = gr.CheckboxGroup(choices=found.names(), value=proposed, visible=bool(count))
        return found, markup.overlay(found, found.chosen(proposed)), box, markup.note(said), ""

    return looked


def _take(studio: Studio) -> Any:
    @told
    def take(made: list[Made], name: str) -> tuple[Any, ...]:
        chosen = next((one for one in made if one.row["id"] == name and one.png is not None), None)
        if chosen is None:
            raise ValueError(f"expected a film that was made here, got {name!r}; make one first")
        return tuple(_looked(studio)(name, images.read(chosen.png).pixels))

    return take


def _upload(studio: Studio) -> Any:
    @told
    def upload(path: str) -> tuple[Any, ...]:
        file = Path(path)
        try:
            pixels = clean.from_outside(file.read_bytes())
        finally:
            file.unlink(missing_ok=True)
        return tuple(_looked(studio)(file.name, pixels))

    return upload


def _redraw(found: clean.Found | None, names: list[str]) -> str:
    return "" if found is None else markup.overlay(found, found.chosen(names))


def _erase(studio: Studio) -> Any:
    @told
    def erase(found: clean.Found | None, names: list[str]) -> tuple[str, str]:
        if found is None:
            raise ValueError("expected a film, got none; upload one first")
        done = clean.erase(found, names, studio.tools)
        name = f"{Path(found.name).stem}-clean.png"
        uri = markup.data_uri(images.to_png(done.pixels), "image/png")
        link = f'<div class="line"><a download="{escape(name)}" href="{uri}">Download the film as PNG</a></div>'
        kind = "bad" if done.left or done.mask is None else "good"
        return markup.before_after(done, found.pixels) + link, markup.note(clean.told(done), kind)

    return erase
