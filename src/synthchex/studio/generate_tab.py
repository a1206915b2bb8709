"""The tab that makes films."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from synthchex.data import records
from synthchex.studio import generate, markup
from synthchex.studio.events import ONCE, told
from synthchex.studio.generate import MAX_FILMS, MAX_GUIDANCE, MAX_STEPS, Asked, Cancelled
from synthchex.studio.parts import Studio

PROGRESS = gr.Progress()


def build(studio: Studio) -> Any:
    """Draw the tab and wire it; the state that holds the films of a session."""
    recipes = studio.maker.recipes
    first = next(iter(recipes))
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            recipe = gr.Dropdown(list(recipes), value=first, label="Recipe", interactive=True)
            example = gr.Dropdown(_texts(studio, first), value=None, label="Example findings", interactive=True)
            prompt = gr.Textbox(label="Prompt", lines=3, max_lines=8, max_length=generate.MAX_PROMPT)
            lint = gr.HTML(markup.note("Type a prompt, or choose an example."))
            labels = gr.Dropdown(
                list(records.LABELS),
                value=[],
                multiselect=True,
                label="Labels that the prompt states",
                info="The judge compares the film with these; leave empty if unsure.",
                interactive=True,
            )
            steps = gr.Slider(1, MAX_STEPS, value=recipes[first].steps, step=1, label="Steps")
            guidance = gr.Slider(0, MAX_GUIDANCE, value=recipes[first].guidance_scale, step=0.1, label="Guidance scale")
            count = gr.Slider(1, MAX_FILMS, value=2, step=1, label="Films")
            seed = gr.Number(value=0, precision=0, minimum=0, label="Seed")
            with gr.Row():
                make = gr.Button("Make films", variant="primary", size="md", elem_id="studio-make")
                cancel = gr.Button("Cancel", size="md", elem_id="studio-cancel")
        with gr.Column(scale=5, min_width=380):
            status = gr.HTML(markup.note("Films appear here, one after the other."), elem_id="studio-made-status")
            films = gr.HTML(elem_id="studio-made", min_height=260)
    state = gr.State([])
    recipe.input(_chosen(studio), recipe, [example, steps, guidance], **ONCE)
    example.input(_example(studio), [recipe, example], [prompt, labels], **ONCE)
    prompt.change(_lint(studio), [recipe, prompt], lint, show_progress="hidden", api_visibility="private")
    asked = [recipe, prompt, labels, seed, steps, guidance, count]
    make.click(_make(studio), asked, [films, status, state], concurrency_id="models", show_progress_on=status, **ONCE)
    cancel.click(_cancel(studio), concurrency_limit=None, show_progress="hidden", api_visibility="private")
    return state


def _texts(studio: Studio, recipe: str) -> list[str]:
    return [text for text, _ in generate.examples(studio.maker.recipes[recipe])]


def _chosen(studio: Studio) -> Any:
    @told
    def chosen(recipe: str) -> Any:
        found = studio.maker.recipes[recipe]
        return gr.Dropdown(choices=_texts(studio, recipe), value=None), found.steps, found.guidance_scale

    return chosen


def _example(studio: Studio) -> Any:
    @told
    def example(recipe: str, text: str) -> Any:
        return text, list(dict(generate.examples(studio.maker.recipes[recipe])).get(text, ()))

    return example


def _lint(studio: Studio) -> Any:
    @told
    def lint(recipe: str, prompt: str) -> str:
        return markup.notes(studio.maker.lint(recipe, prompt), "The linter finds nothing.")

    return lint


def _make(studio: Studio) -> Any:
    @told
    def make(
        recipe: str, prompt: str, labels: list[str], seed: int, steps: int, guidance: float, count: int,
        request: gr.Request, progress: gr.Progress = PROGRESS,
    ) -> Iterator[Any]:  # fmt: skip
        asked = Asked(
            prompt, int(seed or 0), int(steps), float(guidance), int(count), tuple(labels), studio.maker.policy
        )
        stop, films = studio.begin(str(request.session_hash)), list[generate.Made]()

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise Cancelled
            progress((done, total), desc="denoising", unit="steps")

        progress(0, desc="loading the model")
        yield markup.made([], asked.count), markup.note("Working …"), []
        try:
            for one in studio.maker.make(recipe, asked, step):
                films.append(one)
                yield markup.made(films, asked.count), markup.note(f"{len(films)} of {asked.count} films"), films
        except Cancelled:
            yield markup.made(films, len(films)), markup.note(f"Stopped after {len(films)} films.", "bad"), films
            return
        finally:
            if studio.running.get(str(request.session_hash)) is stop:
                studio.stop(str(request.session_hash))
        yield markup.made(films, len(films)), markup.note(f"{len(films)} films are there.", "good"), films

    return make


def _cancel(studio: Studio) -> Any:
    """What stops the films of a session; what was made until then is told by `_make`, which ends at its next step."""

    def cancel(request: gr.Request) -> None:
        if not studio.stop(str(request.session_hash)):
            gr.Info("Nothing is being made.", title="Cancel")

    return cancel
