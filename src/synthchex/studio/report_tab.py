"""The tab that opens reports and lays evaluations beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr

from synthchex.studio import markup, reports
from synthchex.studio.events import ONCE, told
from synthchex.studio.parts import Studio


def build(studio: Studio) -> None:
    """Draw the tab and wire it."""
    names = list(studio.reports)
    with gr.Row():
        folder = gr.Dropdown(names, value=None, label="Evaluation", interactive=True, elem_id="studio-report")
        several = gr.Dropdown(
            names, value=names[:4], multiselect=True, label="Beside each other", interactive=True, elem_id="studio-runs"
        )
        with gr.Column(min_width=160, scale=0):
            beside = gr.Button("Scores beside each other", size="sm", elem_id="studio-beside")
            tests = gr.Button("Compare with tests", size="sm", elem_id="studio-tests")
    table = gr.HTML(elem_id="studio-table")
    page = gr.HTML(elem_id="studio-page")
    folder.input(_page(studio), folder, page, **ONCE)
    beside.click(_beside(studio), several, table, **ONCE)
    tests.click(_tests(studio), several, table, concurrency_id="models", **ONCE)


def _chosen(studio: Studio, names: list[str]) -> dict[str, Any]:
    unknown = sorted(set(names) - set(studio.reports))
    if unknown or not names:
        raise ValueError(f"expected evaluations among {list(studio.reports)}, got {names}; choose some")
    return {name: studio.reports[name] for name in names}


def _page(studio: Studio) -> Any:
    @told
    def page(name: str) -> str:
        return markup.framed(reports.page(next(iter(_chosen(studio, [name]).values()))))

    return page


def _beside(studio: Studio) -> Any:
    @told
    def beside(names: list[str]) -> str:
        found = reports.side_by_side(_chosen(studio, names))
        told_how = "Each as its own evaluation says; values of different real sets or encoders do not compare."
        return markup.table(found.columns, found.rows, names=2) + markup.note(told_how)

    return beside


def _tests(studio: Studio) -> Any:
    @told
    def tests(names: list[str], progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        progress(0, desc="testing every pair")
        standings, pairs = reports.compared(_chosen(studio, names), studio.feature_store)
        return (
            markup.table(standings.columns, standings.rows)
            + markup.note("In parentheses the rank: one more than the number of models that are significantly better.")
            + markup.table(pairs.columns, pairs.rows, names=3)
        )

    return tests
