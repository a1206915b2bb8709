"""How fast a dataset is built, beside a bare `pyarrow.parquet.ParquetWriter` on the same bytes, and how much memory it
takes.

python benchmarks/building.py --rows 100000
python benchmarks/building.py --rows 20000 --rounds 2

The source is what `synthchex filter` writes: shards of distinct noise films of 256 x 256 whose PNGs have the size of
real ones. Each run is a fresh process into an empty folder; writers take turns, the least of the rounds counts. The
bare writer reads the same files and writes all kept rows, 1,000 per file and 100 per row group, and nothing else: no
splits, no configurations, no counts, no card, no fsync. CPU seconds are steadier than the clock's on a busy machine.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

SIZE, KEPT = 256, 0.7
COLUMNS = ("image", "filename", "prompt", "labels_dict")


def write_source(folder: Path, rows: int) -> None:
    """Judged films: 40 % High, 30 % Medium, 30 % Low Quality, a third as many prompts as films."""
    from synthchex.data import records, shards

    kinds = ("High Quality", "Medium Quality", "Low Quality")
    labels = [records.labels_dict({name: 1}) for name in records.LABELS]

    films = [noise(seed) for seed in range(200)]

    def made(row: int) -> dict[str, Any]:
        kind = int(np.searchsorted([0.4, KEPT], np.random.default_rng(row).random()))
        return {
            "image": {"bytes": distinct(films[row % 200], row), "path": f"{row:08d}.png"},
            "filename": f"{row:08d}.png",
            "prompt": f"Finding number {row // 3}. No pleural effusion. The heart is of normal size. " * 3,
            "labels_dict": labels[row % len(labels)],
            "id": f"{row:08d}",
            "model": "noise",
            "quality": kinds[kind],
            "quality_scores": '{"High Quality": 0.5}',
            "judge": "fixed",
            "drop_reason": None if kind < 2 else "low_quality",
        }

    plan = shards.Plan("filter", "benchmark", rows, 1000, {})
    shards.begin(folder, plan)
    shards.fill(
        folder,
        plan,
        lambda span: [made(row) for row in span],
        records.features(verdict=True),
        unit="films",
        quiet=False,
    )


def noise(seed: int) -> bytes:
    """PNG of a smooth film with noise."""
    from PIL import Image

    random = np.random.default_rng(seed)
    smooth = np.kron(random.integers(0, 200, (16, 16), np.uint8), np.ones((16, 16), np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(smooth + random.integers(0, 32, (SIZE, SIZE), np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def distinct(png: bytes, row: int) -> bytes:
    """The same film in a file of its own: with a text chunk before the end, which is 12 bytes."""
    chunk = b"tEXtrow\0%08d" % row
    return png[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]


def bare(source: Path, out: Path) -> None:
    """The bare writer: read a row group, leave dropped rows out, write."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    out.mkdir(parents=True)
    writer, held, number = None, 0, 0
    for path in sorted((source / "data").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(100, columns=[*COLUMNS, "drop_reason"]):
            kept = batch.filter(pc.is_null(batch.column("drop_reason"))).select(list(COLUMNS))
            if writer is None:
                writer = pq.ParquetWriter(out / f"{number:05d}.parquet", kept.schema)
            writer.write_batch(kept, row_group_size=100)
            held += len(kept)
            if held >= 1000:
                writer.close()
                writer, held, number = None, 0, number + 1
    if writer is not None:
        writer.close()


def ours(source: Path, out: Path, *words: str) -> None:
    """The command."""
    import runpy

    import synthchex

    script = runpy.run_path(str(synthchex.room("datasets_scripts") / "build.py"))
    script["main"](["--images", str(source), "--out", str(out), "--quiet", *words])


SPLITS = ("--split", "train=0.8", "--split", "validation=0.1", "--split", "test=0.1")
CASES = {
    "bare ParquetWriter": bare,
    "synthchex build": ours,
    "synthchex build, 3 splits": lambda source, out: ours(source, out, *SPLITS),
    "synthchex build --all, 3 splits": lambda source, out: ours(source, out, *SPLITS, "--all"),
}


def run_one(name: str, source: Path, out: Path) -> dict[str, float]:
    """Seconds of one case, imports apart, and the most memory of its process."""
    import datasets  # noqa: F401
    import jinja2  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401

    idle, before = peak_mb(), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    CASES[name](source, out)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "mb": peak_mb(), "mb_before": idle}


def peak_mb() -> float:
    """Most memory of this process so far; `ru_maxrss` would be that of the process that started it where it is more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(name: str, source: Path, out: Path) -> dict[str, float]:
    """One case in a fresh process."""
    words = [sys.executable, __file__, "--one", name, str(source), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Write the source, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--one", nargs=3, metavar=("CASE", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, source, out = options.one
        print(json.dumps(run_one(name, Path(source), Path(out))))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "judged"
        write_source(source, options.rows)
        size = sum(path.stat().st_size for path in source.rglob("*.parquet"))
        best: dict[str, dict[str, float]] = {}
        for _ in range(options.rounds):
            for name in options.cases:
                found = measure(name, source, Path(folder) / "out")
                if name not in best or found["wall"] < best[name]["wall"]:
                    best[name] = found
    print(f"{options.rows:,} films, {size / 2**20:,.0f} MiB, of which {KEPT:.0%} are kept\n")
    print("| | wall, s | CPU, s | films/s | throughput over bare | peak memory, MB | before the first film, MB |")
    print("|---|---|---|---|---|---|---|")
    for name, one in best.items():
        ratio = best[options.cases[0]]["wall"] / one["wall"]
        rate = options.rows / one["wall"]
        print(
            f"| {name} | {one['wall']:.2f} | {one['cpu']:.2f} | {rate:,.0f} | {ratio:.2f} | {one['mb']:.0f} "
            f"| {one['mb_before']:.0f} |"
        )


if __name__ == "__main__":
    main()
