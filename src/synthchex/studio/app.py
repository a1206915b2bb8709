"""The page of the studio in Gradio: four tabs, one look, and nothing that leaves this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from synthchex.studio import browse_tab, clean_tab, generate_tab, markup, report_tab, safety
from synthchex.studio.parts import Studio

FILES = Path(__file__).parent
TITLE = "synthchex studio"
SWITCH = "() => { document.body.classList.toggle('dark'); }"
NO_FILMS = "No dataset is open. Start with --films DATASET: any output of generate, filter or build, a folder, a table."
NO_REPORTS = "No evaluation is open. Start with --reports DIR: output of evaluate, or a folder with several."


def build(studio: Studio) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 600)) as page:
        with gr.Row(elem_classes="studio-head"):
            gr.HTML(f"<h1>{TITLE}</h1>", scale=1)
            switch = gr.Button("Dark / light", size="sm", scale=0, min_width=110, elem_id="studio-switch")
            switch.click(None, js=SWITCH, api_visibility="private")
        with gr.Tabs(selected="generate") as tabs:
            with gr.Tab("Generate", id="generate"):
                made = generate_tab.build(studio)
            with gr.Tab("Clean", id="clean"):
                cleaner = clean_tab.build(studio, made)
            with gr.Tab("Browse", id="browse"):
                if studio.browser is None:
                    gr.HTML(markup.note(NO_FILMS))
                else:
                    browse_tab.build(studio.browser, page, cleaner, tabs)
            with gr.Tab("Report", id="report"):
                if not studio.reports:
                    gr.HTML(markup.note(NO_REPORTS))
                else:
                    report_tab.build(studio)
        page.unload(_left(studio))
    page.queue(max_size=safety.QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def theme() -> Any:
    """The look: fonts of the machine, square corners, little colour."""
    fonts = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")
    sizes: dict[str, Any] = {
        "spacing_size": gr.themes.sizes.spacing_sm,
        "radius_size": gr.themes.sizes.radius_sm,
        "text_size": gr.themes.sizes.text_sm,
    }
    return gr.themes.Base(primary_hue="blue", neutral_hue="zinc", font=fonts, font_mono=mono, **sizes)


def launch(page: gr.Blocks, *, host: str, port: int | None, share: bool) -> str:
    """Serve the page in the background; its address.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware

    _, local, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        inbrowser=False,
        allowed_paths=[],
        max_file_size=safety.MAX_UPLOAD_BYTES,
        app_kwargs={"middleware": [Middleware(safety.Guard, local=safety.is_loopback(host) and not share)]},
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme(),
        css=(FILES / "style.css").read_text(),
        head=f"<script>{(FILES / 'keys.js').read_text()}</script>",
    )
    return public or local


def _left(studio: Studio) -> Any:
    def left(request: gr.Request) -> None:
        studio.stop(str(request.session_hash))

    return left
