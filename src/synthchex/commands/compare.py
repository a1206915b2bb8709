"""`synthchex compare`: which of several evaluated models is better, with tests, and a leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.data import shards
from synthchex.options import Parser
from synthchex.report import leaderboard
from synthchex.scores import chexgenbench, comparison
from synthchex.scores.comparison import Options


def parser() -> Parser:
    """The options of `synthchex compare`."""
    options = Parser(
        command="compare",
        description="Compare models that were evaluated against the same real set: paired by prompt where prompts are "
        "shared, with intervals, adjusted p values, and ranks that models share when they cannot be told apart.",
        examples=(
            "synthchex compare scores-a scores-b scores-c --out comparison",
            "synthchex compare a b --names sana pixart --feature-store features --published --out comparison",
        ),
    )
    options.add_argument("evaluations", nargs="+", type=Path, help="--out folders of `synthchex evaluate`")
    options.add_argument("--names", nargs="+", help="of the models, in the same order (default: names of the folders)")
    options.add_argument("--out", required=True, type=Path, help="folder for comparison.json and leaderboard.*")
    options.add_argument("--feature-store", type=Path, help="where features are kept, when not in each folder")
    options.add_argument("--permutations", type=int, default=Options.permutations, help="of each test")
    options.add_argument("--adjustment", default=Options.adjustment, help="of p values, per metric: holm or bh")
    options.add_argument("--alpha", type=float, default=Options.alpha, help="level at which one model is better")
    options.add_argument("--confidence-level", type=float, default=Options.confidence_level, help="of the intervals")
    options.add_argument("--seed", type=int, default=Options.seed, help="of permutations and groups")
    options.add_argument(
        "--published", action="store_true", help="add the published figures of CheXGenBench, marked as another protocol"
    )
    options.add_common()
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Read the evaluations, test every pair, write and print the leaderboard."""
    options = parser().parse_args(argv)
    names = options.names or [folder.resolve().name for folder in options.evaluations]
    if len(names) != len(options.evaluations):
        raise ValueError(f"--names takes one name for each evaluation, got {len(names)} for {len(options.evaluations)}")
    models = [
        comparison.read(folder, name, options.feature_store)
        for folder, name in zip(options.evaluations, names, strict=True)
    ]
    chosen = Options(**{name: getattr(options, name) for name in Options.__dataclass_fields__})
    found = comparison.compare(models, chosen)
    pages = write(found, options.out, published=options.published)
    if options.json:
        print(json.dumps({"comparison": str(options.out / "comparison.json")}))
    else:
        print(pages["leaderboard.md"])


def write(found: dict[str, Any], out: Path, *, published: bool) -> dict[str, str]:
    """Write comparison.json and leaderboard.md, .csv, .tex; their texts by file name."""
    standings, tests = leaderboard.standings(found), leaderboard.tests(found)
    texts = {
        "leaderboard.md": page(found, published=published),
        "leaderboard.csv": leaderboard.comma_separated(standings),
        "leaderboard.tex": leaderboard.latex(standings),
        "tests.csv": leaderboard.comma_separated(tests),
    }
    extra = {"published": chexgenbench.published_file()} if published else {}
    texts["comparison.json"] = json.dumps(found | extra, indent=2) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        shards.write_whole(out / name, text.encode())
    return texts


def page(found: dict[str, Any], *, published: bool) -> str:
    """The leaderboard as a Markdown page."""
    how, options = found["pairing"], found["options"]
    films = f"{how['films']} films of each model"
    pairing = (
        f"Films are paired by prompt: {films}; left out, because another model did not draw their prompt: "
        f"{how['left_out']}."
        if how["paired"]
        else f"The models drew different prompts, so they are compared as independent samples of {films}."
    )
    text = (
        f"{leaderboard.markdown(leaderboard.standings(found))}\n"
        f"Values are of each model's own evaluation against {found['real']}, protocol {found['protocol']}; in brackets "
        f"the interval; in parentheses the rank: one more than the number of models that are significantly better "
        f"(p adjusted by {options['adjustment']} below {options['alpha']}), so models that cannot be told apart share "
        f"one. {pairing}\n\n{leaderboard.markdown(leaderboard.tests(found))}"
    )
    if published:
        figures = chexgenbench.published_file()
        table = leaderboard.markdown(leaderboard.published(chexgenbench.published()))
        text += f"\nPublished by {figures['source']['cite']}: {figures['how']} {figures['caveat']}\n\n{table}"
    return text
