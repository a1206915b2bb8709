"""`synthchex studio`: a page on this machine to make films, clean them, look through a dataset and read reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import synthchex
from synthchex import judges, processes, textmask
from synthchex.data import recipes, sources
from synthchex.data.importers import policies
from synthchex.extras import require
from synthchex.models import samplers
from synthchex.options import REFUSED, Parser
from synthchex.studio import index, reports, safety
from synthchex.studio.browse import Browser
from synthchex.studio.generate import Maker
from synthchex.studio.neighbours import Neighbours
from synthchex.studio.parts import Studio
from synthchex.studio.ratings import Ratings

PHANTOM = "phantom"


def parser() -> Parser:
    """The options of `synthchex studio`."""
    options = Parser(
        command="studio",
        description="A page on this machine: make films, erase burned-in text, look through a dataset, read reports.",
        examples=(
            "synthchex studio",
            "synthchex studio --films judged --real real --reports scores --source-policy open",
            "synthchex studio --recipe sana my-model.yaml --judge medgemma --films judged --ratings me.csv --reader me",
        ),
    )
    models = options.add_argument_group("what makes and judges films")
    models.add_argument("--recipe", nargs="+", default=[PHANTOM], help="recipes to choose from (default phantom)")
    models.add_argument(
        "--judge", help="a YAML, or the name of one in filtering/configs (default phantom, for phantoms)"
    )
    models.add_argument("--classifier", help="for label probabilities (default: the judge's own, where it has one)")
    models.add_argument("--device", help="cpu, cuda, … (default: the first GPU, else the CPU)")
    models.add_argument("--threads", type=int, default=1, help="CPU threads of a model; part of the result (default 1)")
    shown = options.add_argument_group("what to look at")
    shown.add_argument("--films", help="dataset to browse: output of any stage, image folder, table or Hub id")
    shown.add_argument("--real", help="real set in which the nearest films are looked for")
    shown.add_argument(
        "--encoder", help="whose features say what is near (default: phantom for phantoms, else rad-dino)"
    )
    shown.add_argument("--feature-store", type=Path, help="folder of features (default: none is kept)")
    shown.add_argument(
        "--reports", nargs="+", type=Path, default=[], help="--out folders of evaluate, or their parents"
    )
    shown.add_argument("--ratings", type=Path, default=Path("ratings.csv"), help="CSV of your ratings (ratings.csv)")
    shown.add_argument("--reader", default="reader", help="your name in that CSV (default reader)")
    who = options.add_argument_group("who may see it")
    who.add_argument(
        "--source-policy",
        choices=policies.POLICIES,
        help="where films, real films, prompts and models come from, where they do not say (default unknown)",
    )
    who.add_argument("--host", default="127.0.0.1", help="address to serve at (default 127.0.0.1: this machine alone)")
    who.add_argument("--port", type=int, default=7860, help="default 7860; 0 takes any that is free")
    who.add_argument("--share", action="store_true", help="a public address by Gradio; only where everything is open")
    options.add_common()
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Refuse, open, serve until interrupted."""
    options = parser().parse_args(argv)
    found = read_recipes(options)
    if why := safety.refusal(stated(options, found), host=options.host, share=options.share):
        print(f"refused: {why}", file=sys.stderr)
        return REFUSED
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require("gradio", extra="study")
    with own_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        serve(options, opened(options, found, folder / "thumbs"))
    return 0


def read_recipes(options: Any) -> dict[str, samplers.Recipe]:
    """Recipes by name.

    Raises:
        ValueError: one is of films that are made elsewhere, or two have one name.
    """
    folder = synthchex.room("generation") / "configs"
    found = [recipes.read(recipes.find(name, folder), samplers.Recipe) for name in options.recipe]
    outside = [recipe.name for recipe in found if recipe.sampler == samplers.EXTERNAL]
    if outside or len({recipe.name for recipe in found}) < len(found):
        raise ValueError(
            f"expected recipes of different names that make films here, got {[recipe.name for recipe in found]}; "
            "name others"
        )
    return {recipe.name: recipe for recipe in found}


def stated(options: Any, found: dict[str, samplers.Recipe]) -> dict[str, str]:
    """The source policy of everything that the page may show."""
    given = options.source_policy
    known = {f"recipe {name}": safety.recipe_policy(recipe, given) for name, recipe in found.items()}
    known |= {what: policies.stated(source, given) for what, source in named(options).items()}
    if options.reports:
        known["reports"] = given or policies.POLICIES[1]
    return known


def named(options: Any) -> dict[str, str]:
    """Sets that were given, by what they are."""
    return {what: source for what, source in (("films", options.films), ("real films", options.real)) if source}


def opened(options: Any, found: dict[str, samplers.Recipe], cache: Path) -> Studio:
    """All parts of the studio; models are loaded when they are first used."""
    device = processes.join(options.device, threads=options.threads).device
    phantoms = all(recipe.model.startswith("embedded:") for recipe in found.values())
    judge_name = options.judge or (PHANTOM if phantoms else None)
    judge = None
    if judge_name is not None:
        judge = recipes.read(recipes.find(judge_name, synthchex.room("filtering") / "configs"), judges.JudgeRecipe)
    tools = textmask.Tools(
        textmask.load_detector("tophat"), textmask.load_segmenter("glyphs"), textmask.load_inpainter("biharmonic")
    )
    return Studio(
        Maker(found, judge, classifier=options.classifier, policy=options.source_policy, device=device),
        tools,
        browser(options, cache, device, PHANTOM if phantoms else "rad-dino"),
        reports.evaluations(options.reports),
        options.feature_store,
    )


def browser(options: Any, cache: Path, device: str | None, encoder: str) -> Browser | None:
    """The dataset to look through, where one was given."""
    if options.films is None:
        if options.real is not None:
            raise ValueError("expected --films with --real, got --real alone; real films are looked for beside others")
        return None
    known = index.open_index(options.films)
    for name, folder in reports.evaluations(options.reports).items():
        known = index.with_samples(known, folder, name)
    near = None
    if options.real is not None:
        near = Neighbours(
            sources.open_images(options.real, missing="count"),
            policy=policies.stated(options.real, options.source_policy),
            encoder=options.encoder or encoder,
            kept=options.feature_store,
            device=device,
        )
    ratings = Ratings(options.ratings, options.reader)
    policy = policies.stated(options.films, options.source_policy)
    return Browser(known, ratings, policy=policy, cache=cache, near=near)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads and thumbnails that nobody else reads and that is gone afterwards, also when terminated."""
    folder = Path(tempfile.mkdtemp(prefix="synthchex-studio-"))  # mode 0700
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield folder
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


def serve(options: Any, studio: Studio) -> None:
    """Serve until interrupted."""
    from synthchex.studio import app

    page = app.build(studio)
    try:
        address = app.launch(page, host=options.host, port=options.port or None, share=options.share)
        print(json.dumps({"url": address}) if options.json else f"studio at {address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)
