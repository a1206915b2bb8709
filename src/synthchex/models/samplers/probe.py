"""What a run would cost, from two batches that are made and thrown away."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

from synthchex.data.prompts import Wanted
from synthchex.models.samplers import rows
from synthchex.models.samplers.recipe import Sampler


@dataclass(frozen=True)
class Probe:
    """Seconds of the first batch and of the next; bytes per encoded film; bytes in use at the most, on the device and
    in the process; `batch_size` is what fits, where the one asked for does not.
    """

    batch_size: int
    films: int
    first_s: float
    next_s: float
    encode_s: float
    bytes_per_film: float
    device_bytes: int
    process_bytes: int

    def seconds(self, films: int, processes: int) -> float:
        """Estimate for a number of films; encoding runs beside sampling."""
        return films / self.films * max(self.next_s, self.encode_s) / processes


def probe(wanted: Wanted, sampler: Sampler, way: rows.Way) -> Probe:
    """Make two batches, halved until they fit: the first pays for what happens once, the second tells the rate."""
    size = way.batch_size
    while True:
        try:
            return _two(wanted, sampler, rows.Way(size, False, way.image_format))
        except RuntimeError as error:
            if error.__cause__ is None or not isinstance(error.__cause__, RuntimeError) or size == 1:
                raise
            if not rows.is_memory(error.__cause__):
                raise
            size = max(size // 2, 1)


def _two(wanted: Wanted, sampler: Sampler, way: rows.Way) -> Probe:
    last, times = min(way.batch_size, len(wanted)), []
    for start in (0, last):
        numbers = [(start + place) % len(wanted) for place in range(last)]
        began = time.monotonic()
        made = rows.sample([wanted.row(number) for number in numbers], sampler, way)
        times.append(time.monotonic() - began)
    began = time.monotonic()
    stored = rows.encode(made, sampler.provenance, way.image_format)
    encode_s = time.monotonic() - began
    size = sum(len(row["image"]["bytes"]) for row in stored if row["image"]) / len(stored)
    return Probe(way.batch_size, last, times[0], times[1], encode_s, size, _device_bytes(), _process_bytes())


def _device_bytes() -> int:
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_available() else 0


def _process_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
