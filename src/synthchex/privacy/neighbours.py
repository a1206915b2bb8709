"""Is a synthetic film a copy? Each one beside all training films, in several spaces, with a null.

A space is a way to say how near two films are: the features of any encoder by name (RAD-DINO sees what radiologists
see, `sscd` is made to find copies), `pixels` (small grey films by correlation), and `ssim` (structural similarity with
the training films that are nearest in pixels). What the distances mean is `maths.memorization`.

Nothing leaves the machine: films, features and distances are read and written locally, and no network is asked but for
the weights of encoders that are named by a Hub id. `Space.results` holds aggregates alone. `Space.films` names training
rows; it, and any picture of a training film, is for those who may see the training set: under a credentialed policy no
real film is shown and no row is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from synthchex.data import images
from synthchex.data.sources import ImageSet
from synthchex.maths import copying, memorization, ssim
from synthchex.maths.memorization import Memorization, Terms
from synthchex.maths.search import Nearest, Owners
from synthchex.measure.sides import check_read_alike
from synthchex.models import encoders, store
from synthchex.models.views import centre_square
from synthchex.privacy import search
from synthchex.privacy.rates import numbers

PIXELS, SSIM = "pixels", "ssim"
SIDE, THUMBNAIL = 32, 64  # pixels of a film in `pixels`, and of one whose SSIM is taken
CANDIDATES = 8  # training films nearest in pixels whose SSIM is taken
PAIRS = 4096  # films whose SSIM is taken at a time
LEAST_PROMPTS = 20  # with fewer different prompts they are taken as given, and films as independent
ROUNDED = 1e-7  # SSIM of films that differ is below 1 by at least this


class Space(NamedTuple):
    """What one space says.

    `results`: plain numbers, lists and texts for a results file; aggregates only. `films`: an array for each column of
    a table with a row per readable synthetic film: `row` in the synthetic set, `train_row` of the nearest training film
    in the training set, `distance`, `ratio` (NNDR, NaN without a second film), `null_share` (share of the null that is
    as near, itself counted), `near` (below the limit) and `authentic`. It names training films: keep it.
    """

    results: dict[str, Any]
    films: dict[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """What is compared and how.

    Args:
        spaces: `pixels`, `ssim`, names of encoders, Hub ids or folders; or objects with `name`, `key` and `encode`.
        store: folder that keeps features; None keeps none.
        folder: folder that keeps searches, so that a killed run goes on; None keeps none.
        terms: false alarms, confidence and the rest.
        device, dtype, aspect: as in `models.encoders.load_encoder`.
        batch_size, num_workers, quiet: as in `models.store.encode`.
    """

    spaces: Sequence[Any] = (encoders.DEFAULT, PIXELS, SSIM)
    store: Path | None = None
    folder: Path | None = None
    terms: Terms = field(default_factory=Terms)
    device: str | None = None
    dtype: str = "float32"
    aspect: str = "own"
    batch_size: int = 32
    num_workers: int = 2
    quiet: bool = True


class Pixels:
    """Films as small grey vectors of mean 0 and length 1: the squared distance of two is 2 (1 - their correlation)."""

    name, key = PIXELS, "privacy-pixels-1"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Centred squares at SIDE x SIDE, float32 (N, SIDE^2); zeros for a film of one grey."""
        rows = np.stack([thumbnail(film, SIDE).ravel() for film in pixels]).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float32)


class Thumbnails:
    """Films as small grey pictures for SSIM."""

    name, key = SSIM, "privacy-thumbnails-1"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Centred squares at THUMBNAIL x THUMBNAIL, uint8 (N, THUMBNAIL^2)."""
        return np.stack([thumbnail(film, THUMBNAIL).ravel() for film in pixels])


def thumbnail(film: np.ndarray, side: int) -> np.ndarray:
    """The largest centred square of a film, antialiased to `side`; uint8 (side, side). The aspect is kept."""
    grey = Image.fromarray(np.ascontiguousarray(images.to_grey(film)))
    return np.asarray(centre_square(grey).resize((side, side), Image.Resampling.LANCZOS))


def neighbours(
    synthetic: ImageSet, train: ImageSet, held_out: ImageSet | None = None, request: Request | None = None
) -> dict[str, Space]:
    """Each synthetic film beside all training films, in every space that is asked for.

    Args:
        synthetic: the films to judge; films of one prompt are taken to be alike where there are `LEAST_PROMPTS` or
            more different ones.
        train: all films that the generator was trained on; `patients` where they are known.
        held_out: real films of other patients, the null; None: training films beside those of other patients.
        request: how; None for the usual.

    Returns:
        A `Space` by the name of each. The same for any number of processes that share `folder`.

    Raises:
        ValueError: patients of held-out films who are in the training set too, no readable film, films of the sides
            read in different ways, an encoder that cannot be loaded.
    """
    request = request or Request()
    check_patients(train, held_out)
    named = _encoders(request)
    sides = [side for side in (synthetic, train, held_out) if side is not None]
    seen = [_encode(side, list(named.values()), request) for side in sides]
    for other in seen[1:]:
        check_read_alike(list(seen[0].ways), list(other.ways))
    out = {}
    for place in range(len(request.spaces)):
        name = _name(request.spaces[place])
        found = _measured(name, [dict(zip(named, one.features, strict=True)) for one in seen], sides, seen, request)
        encoder = named[PIXELS if name == SSIM else name]
        results = memorization.results(found) | _facts(name, encoder, found, seen)
        out[name] = Space(results, _films(found, seen))
    return out


def check_patients(train: ImageSet, held_out: ImageSet | None) -> None:
    """Refuse held-out films of patients that were trained on.

    Raises:
        ValueError: with how many patients and films.
    """
    if held_out is None or held_out.patients is None or train.patients is None:
        return
    both = set(held_out.patients) & set(train.patients)
    if both:
        films = sum(patient in both for patient in held_out.patients)
        raise ValueError(
            f"expected held-out films of other patients than the training films, got {len(both)} patients that are in "
            f"both ({films} of {len(held_out)} held-out films); leave those films out, they are no null"
        )


def _name(space: Any) -> str:
    return space if isinstance(space, str) else str(space.name)


def _encoders(request: Request) -> dict[str, Any]:
    """What films go through, by name; SSIM needs pixels and pictures."""
    out: dict[str, Any] = {}
    for space in request.spaces:
        if not isinstance(space, str):
            out[_name(space)] = space
        elif space in (PIXELS, SSIM):
            out |= {PIXELS: Pixels()} | ({SSIM: Thumbnails()} if space == SSIM else {})
        else:
            out[space] = encoders.load_encoder(space, device=request.device, dtype=request.dtype, aspect=request.aspect)
    return out


def _encode(side: ImageSet, named: list[Any], request: Request) -> store.Encoded:
    return store.encode(
        side,
        named,
        request.store,
        batch_size=request.batch_size,
        num_workers=request.num_workers,
        quiet=request.quiet,
    )


def _measured(
    name: str,
    features: list[dict[str, np.ndarray]],
    sides: list[ImageSet],
    seen: list[store.Encoded],
    request: Request,
) -> Memorization:
    """One space; films of all sides by encoder."""
    prompts, patients, others = (
        *(_units(ids, one.kept) for ids, one in zip((sides[0].prompts, sides[1].patients), seen, strict=False)),
        _units(sides[2].patients, seen[2].kept) if len(sides) > 2 else None,
    )
    if prompts is not None and len(np.unique(prompts)) < LEAST_PROMPTS:
        prompts = None
    find = partial(search.nearest, folder=request.folder, quiet=request.quiet)
    given: list[Any] = [side[name] for side in features]
    ways: dict[str, Any] = {"find": find}
    if name == SSIM:
        similar = _Similar([side[PIXELS] for side in features], given, find)
        given, ways = similar.places, {"find": similar.nearest, "rooms": similar.cells}
    return memorization.measure(
        given[0],
        given[1],
        given[2] if len(given) > 2 else None,
        prompts=prompts,
        patients=patients,
        held_out_patients=others,
        terms=request.terms,
        **ways,
    )


def _units(ids: Sequence[str] | None, kept: np.ndarray) -> np.ndarray | None:
    return None if ids is None else numbers([ids[row] for row in kept], len(kept), "ids")


class _Similar:
    """SSIM as a search: films of all sides under running numbers, `places`, so that parts of a side can be asked."""

    def __init__(self, pixels: list[np.ndarray], pictures: list[np.ndarray], find: memorization.Find) -> None:
        self._pixels, self._pictures, self._find = pixels, pictures, find
        self._starts = np.cumsum([0, *(len(side) for side in pixels)])
        self.places = [np.arange(*ends) for ends in zip(self._starts[:-1], self._starts[1:], strict=True)]

    def nearest(self, queries: np.ndarray, references: np.ndarray, k: int, *, owners: Owners | None = None) -> Nearest:
        """The k training films of greatest SSIM among the `CANDIDATES` nearest in pixels; distances are 1 - SSIM."""
        side, rows = self._where(queries)
        near = self._find(self._pixels[side][rows], self._pixels[1], max(k, CANDIDATES), owners=owners)
        parts = [slice(start, start + PAIRS) for start in range(0, len(rows), PAIRS)]
        apart = [_unlike(self._pictures[side][rows[part]], self._pictures[1], near.rows[part]) for part in parts]
        return _reordered(np.concatenate(apart), near.rows, k)

    def cells(self, references: np.ndarray, sets: Sequence[np.ndarray], *, count: int) -> list[np.ndarray]:
        """Cells of C_T, in pixels."""
        parts = [self._pixels[side][rows] for side, rows in map(self._where, sets)]
        return copying.cells(self._pixels[1], parts, count=count)

    def _where(self, places: np.ndarray) -> tuple[int, np.ndarray]:
        """Side of some places, which all are of one, and their rows in it."""
        side = int(np.searchsorted(self._starts, places[0], side="right")) - 1
        return side, places - self._starts[side]


def _reordered(apart: np.ndarray, rows: np.ndarray, k: int) -> Nearest:
    """The k nearest of some candidates by their distances, of equal ones the lower row first."""
    order = np.lexsort((rows, apart), axis=1)[:, :k]
    return Nearest(np.take_along_axis(apart, order, 1), np.take_along_axis(rows, order, 1))


def _unlike(pictures: np.ndarray, others: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 - SSIM of films with their candidates, (B, C): 0 for equal pictures alone, infinite where there is none."""
    out = np.full(rows.shape, np.inf)
    i, j = np.nonzero(rows >= 0)
    one, two = pictures[i], others[rows[i, j]]
    shape = (-1, THUMBNAIL, THUMBNAIL)
    apart = 1.0 - ssim.thumbnail_similarities(one.reshape(shape), two.reshape(shape))
    out[i, j] = np.where((one == two).all(axis=1), 0.0, np.maximum(apart, ROUNDED))
    return out


def _facts(name: str, encoder: Any, found: Memorization, seen: list[store.Encoded]) -> dict[str, Any]:
    """What was compared: names and counts of a space."""
    label = {PIXELS: f"grey, centre crop, {SIDE} x {SIDE}", SSIM: f"SSIM, centre crop, {THUMBNAIL} x {THUMBNAIL}"}
    return {
        "space": name,
        "encoder": label.get(name) or str(getattr(encoder, "name", name)),
        "key": Thumbnails.key if name == SSIM else encoder.key,
        "n_films": len(seen[0].kept),
        "n_training_films": len(seen[1].kept),
        "n_skipped": [sum(one.skipped.values()) for one in seen],
        "warnings": memorization.doubts(found) + _unread(seen),
        "curve": {"synthetic": _quantiles(found.copying.dcr), "null": _quantiles(found.copying.null_dcr)},
    }


def _unread(seen: list[store.Encoded]) -> list[str]:
    """What films that cannot be read mean for the result."""
    told = {"synthetic": "they are not judged", "training": "copies of them are not found", "held-out": ""}
    lost = zip(told.items(), (sum(one.skipped.values()) for one in seen), strict=False)
    return [f"{count} {side} films could not be read{means and ': '}{means}" for (side, means), count in lost if count]


def _quantiles(values: np.ndarray) -> list[float]:
    """Percentiles 0 to 100, for a plot."""
    return [float(value) for value in np.quantile(values, np.linspace(0, 1, 101))]


def _films(found: Memorization, seen: list[store.Encoded]) -> dict[str, np.ndarray]:
    """Columns of the table of synthetic films."""
    said = found.copying
    nearer = np.searchsorted(np.sort(said.null_dcr), said.dcr, side="right")
    return {
        "row": seen[0].kept,
        "train_row": seen[1].kept[found.near.rows[:, 0]],
        "distance": said.dcr,
        "ratio": said.nndr,
        "null_share": (nearer + 1) / (len(said.null_dcr) + 1),
        "near": said.dcr < said.limit.distance,
        "authentic": found.authentic,
    }


def columns(spaces: Mapping[str, Space]) -> dict[str, np.ndarray]:
    """All spaces as the columns of one table: `row`, then `<space>_<column>` of each."""
    first = next(iter(spaces.values()))
    out = {"row": first.films["row"]}
    for name, space in spaces.items():
        out |= {f"{name}_{column}": values for column, values in space.films.items() if column != "row"}
    return out
