"""`synthchex <command>`: one entry, one table of commands. Imports nothing heavy; each command loads what it needs."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module

import synthchex
from synthchex import options
from synthchex.commands.launch import LAUNCHED

# command: (module, or room/script; group; what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("synthchex.commands.job", "start here", "the whole job on the embedded phantom domain"),
    "doctor": ("synthchex.commands.doctor", "start here", "what works on this machine, what to install for the rest"),
    "run": ("synthchex.commands.job", "whole job", "prompts to report, from a YAML"),
    "generate": (LAUNCHED["generate"], "stages", "films from a table of prompts"),
    "finetune": (LAUNCHED["finetune"], "stages", "a text-to-image model on films with prompts: LoRA or all weights"),
    "remove-text": (LAUNCHED["remove-text"], "stages", "films without burned-in text; masks and reasons"),
    "filter": (LAUNCHED["filter"], "stages", "a verdict for every film, with scores and the reason for dropping"),
    "calibrate": (LAUNCHED["calibrate"], "stages", "how far judge and screens can be believed, on planted defects"),
    "ablate": ("filtering/ablate.py", "stages", "whether filtering helps: kept films beside random subsets of as many"),
    "build": ("datasets_scripts/build.py", "stages", "kept films as a dataset that load_dataset reads"),
    "evaluate": (
        "synthchex.commands.evaluation",
        "stages",
        "any synthetic set against any real one, overall and per label",
    ),
    "utility": ("synthchex.commands.utility", "stages", "what training classifiers on synthetic films is worth"),
    "utility-reports": (
        "synthchex.commands.utility_reports",
        "stages",
        "report writers trained on synthetic and on real films, beside each other",
    ),
    "privacy": ("synthchex.commands.privacy", "stages", "copies of training films, and how sure one can be"),
    "compare": ("synthchex.commands.compare", "stages", "evaluated models against each other: tests and a leaderboard"),
    "studio": (
        "synthchex.commands.studio",
        "readers",
        "a page to make, clean and look through films, and to read reports",
    ),
    "study": ("synthchex.commands.study", "readers", "a reader study: films made alike, shown, answers analysed"),
    "publish": ("synthchex.commands.publish", "publish", "a dataset to the Hub, through a gate for patients' privacy"),
    "push-metrics": ("synthchex.commands.push_metrics", "publish", "the metric modules as Spaces of a Hub namespace"),
    "import": ("datasets_scripts/import_films.py", "data in", "published sets, or films of your own, as one record"),
    "phantom": ("datasets_scripts/import_phantom.py", "data in", "films or prompts of the embedded phantom domain"),
    "convert": (
        "datasets_scripts/convert.py",
        "data in",
        "a dataset with a loading script or arrays, as Parquet with images",
    ),
    "launch": ("synthchex.commands.launch", "many processes", ", ".join(LAUNCHED) + " on several GPUs or cores"),
}


def usage() -> str:
    """The page that `synthchex --help` prints."""
    lines = [
        f"synthchex {synthchex.__version__}: synthetic chest radiographs that people can trust",
        "",
        "usage: synthchex <command> [options]",
    ]
    for group in dict.fromkeys(entry[1] for entry in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<17}{text}" for name, (_, its_group, text) in COMMANDS.items() if its_group == group]
    lines += [
        "",
        "examples:",
        "  synthchex demo",
        "  synthchex evaluate --real real/ --synthetic synthetic/ --out scores",
    ]
    return "\n".join([*lines, "", "synthchex <command> --help shows the options of a command and examples."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    # Threads of torch that wait by spinning make a busy machine ten times slower: read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(synthchex.__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"error: expected one of {', '.join(COMMANDS)}, got {words[0]!r}; see synthchex --help", file=sys.stderr)
        return options.BAD_INPUT
    return run_command(words[0], words[1:])


def run_command(name: str, arguments: Sequence[str]) -> int:
    """A command's `main`, from its module or from its script in a room."""
    target = COMMANDS[name][0]
    if not target.endswith(".py"):
        module = import_module(target)
        return options.run(getattr(module, name if name in ("demo", "run") else "main"), arguments)
    room, script = target.split("/")
    sys.argv = [f"synthchex {name}", *arguments]
    return options.run(runpy.run_path(str(synthchex.room(room) / script))["main"], arguments)


if __name__ == "__main__":
    sys.exit(main())
