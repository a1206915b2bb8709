"""Films as rows: sampled batch by batch, looked at, sampled once more where they show nothing, encoded by a thread.

A batch is what is given to the network at once. Its films depend on which others are in it, in their last bits, so the
rows of a batch are fixed, and a batch that does not fit in memory is an error, never silently two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from synthchex.data import images, records
from synthchex.data.defects import defect
from synthchex.data.prompts import Wanted
from synthchex.models.samplers.recipe import Sample, Sampler

COLUMNS = {"drop_reason": "string", "retries": "int8"}
ENCODERS = {"png": images.to_png, "webp": images.to_webp}


@dataclass(frozen=True)
class Way:
    """How films are made of rows: films per forward pass, whether those that show nothing are tried again, format."""

    batch_size: int
    retry: bool = False
    image_format: str = "png"


@dataclass
class Tally:
    """What one process did: films, seconds in the sampler, and its own time so far."""

    films: int = 0
    sampling_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def line(self, rank: int) -> str:
        """One line for a person."""
        spent = max(time.monotonic() - self.began, 1e-9)
        share = 100 * self.sampling_s / spent
        return (
            f"process {rank}: {self.films} films, {self.films / spent:.2f}/s, {share:.0f} % of the time in the sampler"
        )


class Made(NamedTuple):
    """Rows of a batch and their films."""

    rows: list[dict[str, Any]]
    films: list[Sample]


def features() -> Any:
    """Types of a generated row: a record, why a film shows nothing, and whether its seed is that of a second try."""
    from datasets import Features, Value

    return Features({**records.features(), **{name: Value(kind) for name, kind in COLUMNS.items()}})


def beginner(
    wanted: Wanted, sampler: Sampler, way: Way, pool: ThreadPoolExecutor, tally: Tally
) -> Callable[[range], Callable[[], list[dict[str, Any]]]]:
    """What `shards.fill_behind` takes: films of a span are sampled now, and encoded by `pool` meanwhile."""

    def begin(span: range) -> Callable[[], list[dict[str, Any]]]:
        encoding = []
        for start in range(0, len(span), way.batch_size):
            numbers = span[start : start + way.batch_size]
            before = time.monotonic()
            made = sample([wanted.row(number) for number in numbers], sampler, way)
            tally.sampling_s += time.monotonic() - before
            tally.films += len(numbers)
            encoding.append(pool.submit(encode, made, sampler.provenance, way.image_format))
        return lambda: [row for part in encoding for row in part.result()]

    return begin


def sample(rows: Sequence[Mapping[str, Any]], sampler: Sampler, way: Way) -> Made:
    """One batch; where asked, films that show nothing are sampled once more, all of them at once, with new seeds.

    Raises:
        RuntimeError: the batch does not fit in memory.
    """
    made = [{**row, "retries": 0} for row in rows]
    films = _forward(sampler, made)
    again = [place for place, film in enumerate(films) if way.retry and defect(film)]
    for place in again:
        made[place] |= {"seed": records.row_seed(made[place]["seed"], made[place]["id"], 1), "retries": 1}
    for place, film in zip(again, _forward(sampler, [made[place] for place in again]), strict=True):
        films[place] = film
    return Made(made, films)


def _forward(sampler: Sampler, rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    if not rows:
        return []
    try:
        return sampler.sample([row["prompt"] for row in rows], [row["seed"] for row in rows])
    except RuntimeError as error:
        if not is_memory(error):
            raise
        raise RuntimeError(
            f"{len(rows)} films at once do not fit in memory ({str(error).splitlines()[0]}); fewer at once are other "
            f"films in their last bits, so this is not changed within a run: start another --out with --batch-size "
            f"{max(len(rows) // 2, 1)}, or a recipe with vae_slicing, vae_tiling or offload; --dry-run finds what fits"
        ) from error


def is_memory(error: RuntimeError) -> bool:
    """Whether a device or the CPU ran out of memory."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def encode(made: Made, provenance: Mapping[str, Any], image_format: str) -> list[dict[str, Any]]:
    """Rows as they are stored; a film that is not finite has no image."""
    rows = []
    for row, film in zip(made.rows, made.films, strict=True):
        image = None
        if film is not None:
            pixels = images.read(film).pixels
            image = {"bytes": ENCODERS[image_format](pixels), "path": row["filename"]}
        rows.append({**row, **provenance, "image": image, "drop_reason": defect(film)})
    return rows
