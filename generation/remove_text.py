"""Films without burned-in text: found, segmented, filled from around it, looked for again.

    synthchex remove-text --images films --out clean
    synthchex remove-text --images films --detector ppocr --segmenter sam --inpainter diffusion --out clean
    synthchex launch --num-processes 4 remove-text --images films --out clean

A film without text leaves as it came, byte for byte; of the others only pixels of the mask change. Side markers (a
single L or R near the border) stay unless asked otherwise. Every row of the input stands once in the output, with its
mask, boxes and a `text_reason`: none without text, `kept-side-marker`, `removed`, `text-left` (found again afterwards)
or `unreadable-<why>`.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthchex import processes, textmask
from synthchex.data import images, records, shards, sources
from synthchex.options import Parser, run
from synthchex.textmask import sheet

COLUMNS = ("text_mask", "text_boxes", "text_reason", "text_tools")
DECIDE = (
    *("detector", "detector_model", "segmenter", "segmenter_model", "inpainter", "inpainter_model"),
    *("prompt", "steps", "seed", "threads", "remove_side_markers"),
)


def parser() -> Parser:
    """The options of `synthchex remove-text`."""
    options = Parser(
        command="remove-text",
        description="Films without burned-in text. Films without text leave byte for byte; elsewhere only masked "
        "pixels change.",
        examples=(
            "synthchex remove-text --images films --out clean",
            "synthchex remove-text --images films --out clean --contact-sheet before-after.png",
            "synthchex remove-text --images films --detector ppocr --segmenter sam --inpainter diffusion --out clean",
            "synthchex launch --num-processes 4 remove-text --images films --out clean",
        ),
    )
    what = options.add_argument_group("what to clean")
    what.add_argument("--images", required=True, help="output of generate, image folder, table or Hub id")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to resume")
    what.add_argument("--remove-side-markers", action="store_true", help="remove a single L or R near the border too")
    tools = options.add_argument_group("by what")
    tools.add_argument(
        "--detector", choices=textmask.DETECTORS, default="tophat", help="what finds text (default tophat, no weights)"
    )
    tools.add_argument("--detector-model", help="Hub id or folder of a PP-OCR detector")
    tools.add_argument(
        "--segmenter", choices=textmask.SEGMENTERS, default="glyphs", help="what is masked (default glyphs: strokes)"
    )
    tools.add_argument("--segmenter-model", help=f"Hub id or folder of a SAM (default {textmask.SAM_MODEL})")
    tools.add_argument(
        "--inpainter", choices=textmask.INPAINTERS, default="biharmonic", help="what fills (default biharmonic)"
    )
    tools.add_argument(
        "--inpainter-model", help=f"Hub id or folder of an inpainting pipeline (default {textmask.INPAINTING_MODEL})"
    )
    tools.add_argument("--prompt", help="of the inpainting pipeline")
    tools.add_argument("--steps", type=int, help="of the inpainting pipeline")
    how = options.add_argument_group("how")
    how.add_argument("--seed", type=int, default=0, help="run seed of grain and pipeline (default 0)")
    how.add_argument("--batch-size", type=int, default=32, help="films per file; what a kill can cost (default 32)")
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process; part of the result (default 1)")
    how.add_argument("--contact-sheet", type=Path, help="PNG to write: films with text, before and after")
    how.add_argument("--contact-films", type=int, default=24, help="films on the contact sheet (default 24)")
    options.add_common()
    return options


def features() -> Any:
    """Columns of the output: a record with mask (PNG bytes), boxes (JSON), reason and tools."""
    from datasets import Value

    kept = records.features(verdict=True)
    kept |= {name: Value("binary" if name == "text_mask" else "string") for name in COLUMNS}
    return kept


def clean_row(films: sources.ImageSet, index: int, tools: textmask.Tools, seed: int) -> dict[str, Any]:
    """One film's row; a film that cannot be read is a row too."""
    row = films.row(index)
    try:
        source = films.fetch(index)
        pixels = images.read(source).pixels
        encoded = images.encoded(source)
    except images.UnreadableImage as error:
        return row | {"image": None, "text_reason": f"unreadable-{error.reason}"}
    done = textmask.clean(pixels, tools, records.row_seed(seed, row["id"]))
    if done.mask is not None:
        encoded = images.to_png(done.pixels)
        row["text_mask"] = images.to_png(done.mask.astype(np.uint8) * 255)
    row |= {"text_boxes": done.boxes(), "text_reason": done.reason}
    return row | {"image": {"bytes": encoded, "path": row["filename"]}}


def load(options: Any, device: str | None) -> textmask.Tools:
    """Detector, segmenter and inpainter."""
    return textmask.Tools(
        textmask.load_detector(options.detector, options.detector_model, device=device),
        textmask.load_segmenter(options.segmenter, options.segmenter_model, device=device),
        textmask.load_inpainter(
            options.inpainter, options.inpainter_model, prompt=options.prompt, steps=options.steps, device=device
        ),
        options.remove_side_markers,
    )


def decides(options: Any) -> dict[str, Any]:
    """What decides the result, for the manifest."""
    return {"method": textmask.METHOD, **{name: getattr(options, name) for name in DECIDE}}


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, claim shards until none is left, count the reasons."""
    options = parser().parse_args(argv)
    steps = 1 if options.steps is None else options.steps
    if min(options.batch_size, options.threads, options.contact_films, steps) < 1:
        raise ValueError("--batch-size, --threads, --steps and --contact-films must be at least 1")
    films = sources.open_images(options.images, missing="count")
    plan = shards.Plan("remove-text", films.fingerprint(), len(films), options.batch_size, decides(options))
    done = shards.begin(options.out, plan)
    process = processes.join(options.device, threads=options.threads)
    if done < plan.rows:
        tools, named = load(options, process.device), json.dumps(decides(options))
        shards.fill(
            options.out,
            plan,
            lambda span: [clean_row(films, i, tools, options.seed) | {"text_tools": named} for i in span],
            features(),
            unit="films",
            quiet=options.quiet or not process.is_main,
        )
    if process.is_main:
        report(options.out, as_json=options.json, quiet=options.quiet)
        if options.contact_sheet:
            draw(films, options.out, options.contact_sheet, options.contact_films)


def report(out: Path, *, as_json: bool, quiet: bool) -> None:
    """Films per reason, and texts removed, kept and left."""
    rows = shards.Rows(shards.parquet_files(out))
    reasons = Counter(reason or "no-text" for reason in rows.column("text_reason"))
    fates = Counter(text["fate"] for boxes in rows.column("text_boxes") for text in json.loads(boxes or "[]"))
    if as_json:
        print(json.dumps({"rows": len(rows), "films": reasons, "texts": fates}))
    elif not quiet:
        print(f"{len(rows)} films: {dict(reasons)}; texts: {dict(fates)}")


def draw(films: sources.ImageSet, out: Path, path: Path, count: int) -> None:
    """The contact sheet of `count` films with text: those with text left first, those that only kept a marker last."""
    rows = shards.Rows(shards.parquet_files(out))
    reasons = rows.column("text_reason")
    shown = [row for why in textmask.REASONS for row, reason in enumerate(reasons) if reason == why][:count]
    if not shown:
        print("no film has text; no contact sheet is written", file=sys.stderr)
        return
    pairs = [
        (images.read(films.fetch(row)).pixels, images.read(rows[row]["image"]).pixels, json.loads(boxes))
        for row in shown
        for boxes in [rows[row]["text_boxes"]]
    ]
    sheet.contact_sheet(pairs, path)


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    # A launcher's process group is left without a barrier: other processes may still be at work.
    os._exit(code) if "LOCAL_RANK" in os.environ else sys.exit(code)
