"""Text removal on phantoms that know their text: how much is found, how much of it is text, what is left, how long.

    python benchmarks/textmask.py
    python benchmarks/textmask.py --sizes 64 256 --films 200 --seed 5

A text is found if its box's centre lies in a found box; a found box is right if its centre lies in a text's box, or a
text's centre in it. Errors are against the same phantom without text, over the masked pixels: of leaving the text over
that of the filled film, so higher is better.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from synthchex import phantom, textmask
from synthchex.phantom import markers
from synthchex.textmask import fill, masks, tophat
from synthchex.textmask.texts import Box

LARGEST = 512  # pixels a side that a phantom is drawn at


class Measured(NamedTuple):
    """What one size gives."""

    recall: float
    precision: float
    false_films: float
    absolute: float
    squared: float
    changed: int
    detect_ms: float
    clean_ms: float


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 128, 256, 512, 2048), help="sides in pixels")
    parser.add_argument("--films", type=int, default=200, help="of 64 pixels; fewer of larger ones")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    names = ("recall", "precision", "clean films hit", "mean error ratio", "squared error ratio", "changed outside")
    print("| side | films | " + " | ".join((*names, "ms to find", "ms in all")) + " |")
    print("|---" * (len(names) + 4) + "|")
    for size in options.sizes:
        count = max(4, min(options.films, options.films * 64 // size))
        found = measure(size, count, options.seed)
        cells = [f"{value:.3f}" for value in found[:3]] + [f"{value:.1f}" for value in found[3:5]]
        cells += [str(found.changed), f"{found.detect_ms:.0f}", f"{found.clean_ms:.0f}"]
        print(f"| {size} | {count} | " + " | ".join(cells) + " |", flush=True)


def measure(size: int, count: int, seed: int) -> Measured:
    """Text removal, side markers too, from `count` phantoms of one size."""
    plain = drawn(size, count, seed)
    marked = [markers.burn(film, np.random.default_rng((seed, row, 2))) for row, film in enumerate(plain)]
    tools = textmask.Tools(tophat.TopHat(), masks.glyphs, fill.biharmonic, remove_side_markers=True)
    tools.detector.detect(plain[0])  # letters are drawn once
    hits, right, false, changed = [], [], [], 0
    errors, took = np.zeros(4), np.zeros(2)
    for (film, boxes), truth in zip(marked, plain, strict=True):
        start = time.perf_counter()
        false.append(bool(tools.detector.detect(truth)))
        middle = time.perf_counter()
        done = textmask.clean(film, tools, 0)
        took += middle - start, time.perf_counter() - middle
        hits += [any(inside(box, text.box) for text in done.found) for box in boxes]
        right += [any(inside(text.box, box) or inside(box, text.box) for box in boxes) for text in done.found]
        if done.mask is not None:
            changed += int((done.pixels != film)[~done.mask].sum())
            left, kept = (one[done.mask].astype(float) - truth[done.mask] for one in (film, done.pixels))
            errors += np.abs(left).sum(), np.abs(kept).sum(), (left**2).sum(), (kept**2).sum()
    shares = float(np.mean(hits)), float(np.mean(right)), float(np.mean(false))
    ratios = float(errors[0] / errors[1]), float(errors[2] / errors[3])
    return Measured(*shares, *ratios, changed, *(took / count * 1000))


def drawn(size: int, count: int, seed: int) -> list[np.ndarray]:
    """Phantoms without text; large ones are small ones made larger, whose text is then drawn at full size."""
    films = phantom.make(count, size=min(size, LARGEST), seed=seed).images
    return [np.asarray(Image.fromarray(film).resize((size, size), Image.Resampling.BICUBIC)) for film in films]


def inside(inner: Box, outer: Box) -> bool:
    """Whether the centre of one box lies in the other."""
    across, down = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= across < outer[2] and outer[1] <= down < outer[3]


if __name__ == "__main__":
    main()
