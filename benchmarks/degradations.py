"""Do the scores order what they should? Real films split by patient, and degraded copies of one half, against the other
half.

    python benchmarks/degradations.py --images films/ --table films.csv --id-column image_id --patient-column patient_id
    \\
        --encoder phantom --out degradations

The table must have one row per image, whose name is the id with a suffix. Prints one line per set: fid, kid with its
interval, precision, recall, density, coverage. The first line is the floor: real films of other patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from synthchex.data import images, sources
from synthchex.options import BAD_INPUT
from synthchex.scores import Request, score

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def blur(share: float) -> Change:
    """Gaussian blur, sigma as a share of the film's width."""
    return lambda film, rng: ndimage.gaussian_filter(film, share * film.shape[1])


def noise(deviation: float) -> Change:
    """White noise, in shares of full scale, of a grain that survives a resize to 64 pixels."""

    def add(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        grain = Image.fromarray(rng.standard_normal((64, 64)).astype(np.float32)).resize(
            film.shape[::-1], Image.Resampling.NEAREST
        )
        return film + deviation * np.asarray(grain)

    return add


def gamma(power: float) -> Change:
    """Histogram shift: power of the grey level."""
    return lambda film, rng: film**power


CHANGES: dict[str, Change] = {
    "floor: other patients": lambda film, rng: film,
    "blur 0.5 %": blur(0.005),
    "blur 2 %": blur(0.02),
    "blur 5 %": blur(0.05),
    "noise 0.05": noise(0.05),
    "noise 0.15": noise(0.15),
    "noise 0.40": noise(0.40),
    "gamma 1.3": gamma(1.3),
    "gamma 2": gamma(2.0),
    "gamma 4": gamma(4.0),
}


def patient_halves(patients: pd.Series, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of two halves with no patient in both."""
    owners = np.unique(patients, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(owners.max() + 1)
    before = np.cumsum(np.bincount(owners)[order])
    first = np.isin(owners, order[: int(np.searchsorted(before, len(owners) / 2))])
    return np.flatnonzero(first), np.flatnonzero(~first)


def as_set(name: str, films: list[np.ndarray]) -> sources.ImageSet:
    """Films in memory as a set."""
    return sources.ImageSet(name, [str(index) for index in range(len(films))], films.__getitem__)


def main() -> int:
    """Split, degrade, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--id-column", default="image_id")
    parser.add_argument("--patient-column", default="patient_id")
    parser.add_argument("--suffix", default=".png")
    parser.add_argument("--encoder", default="phantom")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=512, help="longer side that films are read at (default 512)")
    options = parser.parse_args()
    if not options.images.is_dir():
        print(f"expected a folder of films, got {options.images}")
        return BAD_INPUT
    table = pd.read_csv(options.table, dtype=str)
    first, second = patient_halves(table[options.patient_column], options.seed)
    films = []
    for name in table[options.id_column]:
        film = Image.fromarray(images.to_grey(images.read(options.images / f"{name}{options.suffix}").pixels))
        film.thumbnail((options.size, options.size), Image.Resampling.LANCZOS)
        films.append(np.asarray(film))
    request = Request(encoders=(options.encoder,), metrics=("fid", "kid", "prdc"))
    real = as_set("real", [films[i] for i in first])
    print(f"{len(first)} films against {len(second)} of other patients, encoder {options.encoder}\n")
    print(f"{'set':<24}{'FID':>9}{'KID':>9}  {'interval':<18}{'prec':>7}{'rec':>7}{'dens':>7}{'cov':>7}")
    for name, change in CHANGES.items():
        rng = np.random.default_rng(options.seed)
        changed = [np.rint(255 * change(films[i] / 255, rng).clip(0, 1)).astype(np.uint8) for i in second]
        rows = {
            row["metric"]: row
            for row in score(real, as_set(name, changed), request, None, quiet=True).results["overall"]
        }
        low, high = rows["kid"]["interval"]
        rest = "".join(f"{rows[key]['value']:>7.2f}" for key in ("precision", "recall", "density", "coverage"))
        print(
            f"{name:<24}{rows['fid']['value']:>9.2f}{rows['kid']['value']:>9.3f} "
            f" {f'{low:.3f} to {high:.3f}':<18}{rest}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
