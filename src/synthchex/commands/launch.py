"""`synthchex launch`: a room's script in several processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import synthchex
from synthchex import processes
from synthchex.options import Parser

LAUNCHED = {
    "generate": "generation/generate.py",
    "finetune": "generation/finetune_lora.py",
    "remove-text": "generation/remove_text.py",
    "filter": "filtering/filter.py",
    "calibrate": "filtering/calibrate.py",
    "evaluate": "commands/evaluation.py",
    "utility-reports": "commands/utility_reports.py",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes and return the first exit code that is not 0."""
    parser = Parser(
        command="launch",
        description="Run a stage in several processes through accelerate. "
        "The result is the same for any number of them.",
        examples=("synthchex launch --num-processes 2 generate --prompts prompts.csv --recipe phantom --out films",),
    )
    parser.add_argument("--num-processes", type=int, required=True, help="one per GPU, or per CPU core")
    parser.add_argument("command", choices=list(LAUNCHED))
    words = list(sys.argv[1:] if argv is None else argv)
    split = next((i + 1 for i, word in enumerate(words) if word in LAUNCHED), len(words))
    options = parser.parse_args(words[:split])
    if options.num_processes < 1:
        raise ValueError(f"--num-processes must be at least 1, got {options.num_processes}")
    place, script = LAUNCHED[options.command].split("/")
    folder = Path(__file__).parent if place == "commands" else synthchex.room(place)
    return processes.launch(folder / script, words[split:], options.num_processes)
