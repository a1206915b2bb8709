"""synthchex's own data scripts with whatever `datasets` and `huggingface_hub` are here, without torch.

    python write_anew.py FOLDER OUT ORG/NAME

Builds the dataset of the matrix anew, converts its upstream layout, reads that with the builder class, stages the built
one and sends it to the Hub of HF_ENDPOINT; each is read back as `read_back.py` does. Prints a JSON object of checks.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import datasets
import read_back

import synthchex
from synthchex.commands import staging, uploads
from synthchex.data.builder import SynthCheX
from synthchex.gate.release import Terms


def main() -> None:
    """Every check, and what it says."""
    folder, out, repo = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    shutil.rmtree(out, ignore_errors=True)
    expected = json.loads((folder / "expected.json").read_text())
    kept = {prompt: row for prompt, row in expected.items() if row[3] is None}

    def build() -> None:
        script("build.py", "--images", folder / "judged", "--out", out / "built", "--domain", "phantom")
        read_back.same([datasets.load_dataset(str(out / "built"), split="train")], kept, read_back.RECORD)

    def convert() -> None:
        script("convert.py", folder / "upstream", "--out", out / "converted")
        read_back.same([datasets.load_dataset(str(out / "converted"), split="train")], kept, read_back.RECORD)

    def builder() -> None:
        made = SynthCheX(data_dir=str(folder / "upstream"), cache_dir=str(out / "cache"))
        made.download_and_prepare()
        read_back.same([made.as_dataset(split="train")], kept, read_back.RECORD)

    def stream() -> None:
        made = SynthCheX(data_dir=str(folder / "upstream"), cache_dir=str(out / "cache"))
        read_back.same([made.as_streaming_dataset(split="train")], kept, read_back.RECORD)

    def push() -> None:
        staged = staging.stage(out / "built", out / "private", Terms("open"), [], quiet=True)
        to = uploads.Destination(repo)
        uploads.prepare(to)
        card = (out / "built" / "README.md").read_bytes()
        uploads.push(to, {**staged.files, uploads.CARD: card}, "films", seen=uploads.state(to))
        read_back.same([datasets.load_dataset(repo, split="train")], kept, read_back.RECORD)

    checks = {"build": build, "convert": convert, "builder": builder, "builder, streaming": stream, "push": push}
    print(json.dumps({"checks": {name: read_back.verdict(check) for name, check in checks.items()}}))


def script(name: str, *words: object) -> None:
    """A script of the room, in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = runpy.run_path(str(synthchex.room("datasets_scripts") / name))["main"]
        run([*map(str, words), "--quiet"])


if __name__ == "__main__":
    main()
