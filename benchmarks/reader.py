"""What does the audit of the reader cost? `images.read` beside bare Pillow: open, load, `np.asarray`.

    python benchmarks/reader.py                      # synthetic films of 1024 x 1024
    python benchmarks/reader.py --images films/      # real ones, as they are and written anew in each format

Prints one line per format: milliseconds of CPU time for a film by each, and films per second as a share of bare
Pillow's (1.00: as fast). Both read the same files from the page cache, in turn; of each film the least of all rounds
counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from synthchex import phantom
from synthchex.data import images
from synthchex.options import BAD_INPUT

SIDE = 1024
Write = Callable[[np.ndarray, Path], None]


def bare(path: Path) -> np.ndarray:
    """Pixels by Pillow and nothing else."""
    with Image.open(path) as image:
        image.load()
        return np.asarray(image)


def audited(path: Path) -> np.ndarray:
    """Pixels by the reader."""
    return images.read(path).pixels


def saved(suffix: str, *, mode: str = "L", deep: bool = False) -> Write:
    """A function that writes a grey film in one format, as RGB where `mode` says so, or as 16 bits."""

    def write(pixels: np.ndarray, path: Path) -> None:
        # 12 bits with noise in the lower 4, as a detector gives them.
        noise = np.random.default_rng(0).integers(0, 16, pixels.shape, np.uint16)
        film = Image.fromarray(pixels.astype(np.uint16) * 16 + noise) if deep else Image.fromarray(pixels).convert(mode)
        film.save(path.with_suffix(suffix))

    return write


def tinted(pixels: np.ndarray, path: Path) -> None:
    """A PNG in colour."""
    Image.fromarray(np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)).save(path.with_suffix(".png"))


FORMATS: dict[str, Write] = {
    "PNG grey": saved(".png"),
    "JPEG grey": saved(".jpg"),
    "PNG, grey stored as RGB": saved(".png", mode="RGB"),
    "JPEG, grey stored as RGB": saved(".jpg", mode="RGB"),
    "PNG colour": tinted,
    "WebP": saved(".webp", mode="RGB"),
    "TIFF grey": saved(".tif"),
    "BMP grey": saved(".bmp"),
    "PNG 16-bit": saved(".png", deep=True),
    "TIFF 16-bit": saved(".tif", deep=True),
}


def seconds(read: Callable[[Path], np.ndarray], path: Path) -> float:
    """CPU time of reading one film, which other programs on the machine do not lengthen."""
    began = time.process_time()
    read(path)
    return time.process_time() - began


def line(name: str, paths: Sequence[Path], rounds: int) -> str:
    """One row of the table: mean over the films of the least time that each took."""
    times = [[[seconds(read, path) for read in (bare, audited)] for path in paths] for _ in range(rounds)]
    pillow, ours = np.min(times, axis=0).mean(axis=0) * 1000
    return f"{name:26s} {pillow:9.2f} {ours:9.2f} {pillow / ours:7.2f}"


def cases(films: Sequence[np.ndarray], folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Name and files of each format."""
    for name, write in FORMATS.items():
        place = folder / name.replace(" ", "_").replace(",", "")
        place.mkdir()
        for number, film in enumerate(films):
            write(film, place / str(number))
        yield name, sorted(place.iterdir())


def main() -> int:
    """Write films in every format, time both readers, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of real films (default: phantoms)")
    parser.add_argument("--limit", type=int, default=20, help="films to read (default: 20)")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = sorted(p for p in options.images.rglob("*") if p.suffix in images.SUFFIXES) if options.images else []
    if options.images and not found:
        print(f"expected a folder of films, got {options.images}")
        return BAD_INPUT
    found = found[:: max(1, len(found) // options.limit)][: options.limit]
    print(f"{'format':26s} {'Pillow ms':>9s} {'ours ms':>9s} {'ratio':>7s}")
    if found:
        print(line("as they are", found, options.rounds))
        films = [images.to_grey(audited(path)) for path in found]
    else:
        small = phantom.make(options.limit, size=256, seed=0).images
        films = [np.asarray(Image.fromarray(film).resize((SIDE, SIDE))) for film in small]
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in cases(films, Path(folder)):
            print(line(name, paths, options.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
