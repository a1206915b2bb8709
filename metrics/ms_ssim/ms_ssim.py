"""MS-SSIM within a set, as a sign of mode collapse; thin: sides are synthchex.measure.solo, maths
synthchex.maths.ssim.
"""

import dataclasses
import math
import types
import typing

import numpy as np
import PIL.Image

import synthchex.data.images as images
import synthchex.maths.intervals as intervals
import synthchex.maths.ssim as ssim
import synthchex.measure as measure
import synthchex.measure.films as films
import synthchex.measure.given as given
import synthchex.measure.sides as sides
import synthchex.measure.solo as impl

DESCRIPTION = """Mean multi-scale structural similarity of pairs of images within the set, a label or a prompt: 0 to 1,
higher means that images repeat (mode collapse). Of grey pixels, no encoder; real images are scored beside it."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, Dataset. Only those in a drawn pair are read;
        they must have one size, or pass `size`.
    references: real images, in any of these forms; optional, scored beside as `ms_ssim_references`.
    prompts: one per prediction, or (prompts of predictions, prompts of references): pairs are of equal prompts.
    n_pairs: most pairs of a set, or of a prompt, 100 by default; drawn at random without repetition.
    scales: 5 as published, which needs sides of 161; fewer for smaller images.
    size: resize to size x size first, antialiased; None leaves images as they are.
    num_workers: threads that read films.
    confidence_level: also return the ends of an interval, for example 0.95.
    groups: {label: mask}, or labels of one or both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None): pairs that share one are not independent in the
        standard error; without prompts only.
    seed: of the pairs.
Returns:
    `ms_ssim`, `ms_ssim_standard_error`, `ms_ssim_highest` (with prompts, the prompt whose images are most alike),
    n_pairs, n_prompts, n_predictions, n_references, encoder ("pixels"), warnings; `labels` when groups are given.
"""
CITATION = """@inproceedings{wang2003multiscale,
  title={Multiscale Structural Similarity for Image Quality Assessment},
  author={Wang, Zhou and Simoncelli, Eero P. and Bovik, Alan C.},
  booktitle={Asilomar Conference on Signals, Systems and Computers}, year={2003}}"""


@dataclasses.dataclass(frozen=True)
class Films:
    """Images of one side that are read when a pair of them is drawn: `places` in `parts`, one prompt each or none."""

    parts: tuple[given.Given, ...]
    places: np.ndarray
    prompts: tuple[str, ...] | None
    name: str
    workers: int
    encoder: str = "pixels"

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: np.ndarray) -> "Films":
        """The side with only some rows."""
        chosen = np.flatnonzero(rows)
        prompts = None if self.prompts is None else tuple(self.prompts[row] for row in chosen)
        return dataclasses.replace(self, places=self.places[chosen], prompts=prompts)

    @classmethod
    def joined(cls, sides_: typing.Sequence["Films"]) -> "Films":
        """One side from those of all processes; the first reads what is drawn, so all paths must be its own too.

        Raises:
            ValueError: only some have prompts.
        """
        without = sum(side.prompts is None for side in sides_)
        if 0 < without < len(sides_):
            raise ValueError(f"prompts: expected them from every process or none, got none from {without}")
        parts = tuple(part for side in sides_ for part in side.parts)
        prompts = None if without else tuple(text for side in sides_ for text in side.prompts or ())
        count = sum(len(part.items) for part in parts)
        return dataclasses.replace(sides_[0], parts=parts, places=np.arange(count), prompts=prompts)


class Measured(typing.NamedTuple):
    """Results of one side, and what was seen of the films that were read for them."""

    result: dict[str, typing.Any]
    shapes: tuple[tuple[int, ...], ...] = ()
    ways: tuple[str, ...] = ()


class MsSsim(impl.Solo):
    """Mean pairwise MS-SSIM; see the card."""

    options = types.MappingProxyType({"prompts": None, "n_pairs": 100, "scales": 5, "size": None})

    def _info(self) -> typing.Any:
        return measure.info(DESCRIPTION, USAGE, CITATION, ["https://doi.org/10.1109/ACSSC.2003.1292216"])

    def side(
        self, encoding: sides.Encoding, parts: typing.Sequence[typing.Any], name: str, options: measure.Options
    ) -> Films:
        """The films of one side, unread."""
        kinds = sorted({part.kind for part in parts})
        if kinds != ["films"]:
            raise ValueError(
                f"{name}: expected images, got {' and '.join(kinds) or 'nothing'}; ms_ssim compares pixels"
            )
        count = sum(len(part.items) for part in parts)
        return Films(tuple(parts), np.arange(count), _prompts(options, name, count), name, encoding.workers)

    def check_same(self, fake: Films, real: Films) -> list[str]:
        """Nothing is known before films are read; see `whole`."""
        return []

    def whole(self, fake: Films, real: Films | None, options: measure.Options) -> dict[str, typing.Any]:
        """Mean similarity of both sides; refuses sides that were read differently."""
        found = _measured(fake, options)
        if real is None:
            return found.result
        enough = len(real) >= self.fewest(options)
        other = _measured(real, impl.of_references(options)) if enough else Measured({})
        sides.check_read_alike(found.ways, other.ways)
        if found.shapes and other.shapes and found.shapes != other.shapes:
            told = f"{list(found.shapes)} for predictions and {list(other.shapes)} for references"
            found.result["warnings"].append(f"sizes differ: {told}; pass size=")
        return found.result | {"ms_ssim_references": other.result.get("ms_ssim")}


def _measured(side: Films, options: measure.Options) -> Measured:
    """Mean similarity of random pairs, within prompts when they are given."""
    members, most = _members(side), options.own["n_pairs"]
    if not members:
        lacking = "insufficient n: expected 2 images of one prompt, got one image a prompt"
        return Measured({"ms_ssim": None, "warnings": [lacking]})
    random = np.random.default_rng(options.seed)
    drawn = {prompt: rows[ssim.draw_pairs(len(rows), most, random)] for prompt, rows in members.items()}
    ids = None if options.patients is None or side.prompts is not None else options.patients[0]
    found, seen = _similarities(side, drawn, ids, options)
    notes = [f"read: {note}" for note in sorted({note for film in seen for note in film.notes})]
    result = _summary(list(found.values())) | {"n_pairs": sum(map(len, drawn.values())), "warnings": notes}
    if side.prompts is not None:
        if options.patients is not None:
            notes.append("option 'patients' is not used: with prompts these are the independent units")
        worst = max(found, key=lambda prompt: found[prompt].value)
        result |= {"ms_ssim_highest": found[worst].value, "ms_ssim_highest_prompt": worst, "n_prompts": len(found)}
    error = result["ms_ssim_standard_error"]
    if options.confidence_level and not math.isnan(error):
        ends_of = intervals.normal(result["ms_ssim"], error, confidence=options.confidence_level)
        clipped = ends_of._replace(low=max(0.0, ends_of.low), high=min(1.0, ends_of.high))
        result |= measure.with_interval("ms_ssim", clipped)
    return Measured(
        result,
        tuple(sorted({film.shape for film in seen})),
        tuple(sorted({film.preprocessing for film in seen})),
    )


class Seen(typing.NamedTuple):
    """What is remembered of a film that was read."""

    shape: tuple[int, ...]
    preprocessing: str
    notes: tuple[str, ...]


def _similarities(
    side: Films, drawn: dict[str, np.ndarray], ids: np.ndarray | None, options: measure.Options
) -> tuple[dict[str, ssim.Mean], set[Seen]]:
    """Mean similarity of each prompt; its films are read, compared and dropped before those of the next but few."""
    size, scales = options.own["size"], options.own["scales"]
    rows = {prompt: np.unique(pairs) for prompt, pairs in drawn.items()}
    places = [int(side.places[row]) for own in rows.values() for row in own]
    reading = films.read(
        side.parts, side.name, lambda film: (_grey(film, size), film), num_workers=side.workers, places=places
    )
    found, seen = dict[str, ssim.Mean](), set[Seen]()
    for prompt, pairs in drawn.items():
        pixels: list[np.ndarray] = []
        for row in rows[prompt]:
            grey, film = next(reading)
            ssim.check_image(grey, int(side.places[row]), scales)
            seen.add(Seen(grey.shape, film.preprocessing, film.notes))
            pixels.append(grey)
        _check_sizes(pixels, side.places[rows[prompt]])
        values = ssim.pair_similarities(pixels, np.searchsorted(rows[prompt], pairs), scales=scales)
        found[prompt] = ssim.mean_of_pairs(values, pairs, ids)
    return found, seen


def _check_sizes(pixels: list[np.ndarray], places: np.ndarray) -> None:
    for place, one in zip(places, pixels, strict=True):
        if one.shape != pixels[0].shape:
            raise ValueError(
                f"expected images of one size, got {pixels[0].shape} for image {places[0]} and {one.shape} for image "
                f"{place}; resize them, or pass size="
            )


def _summary(found: list[ssim.Mean]) -> dict[str, typing.Any]:
    """Mean over prompts, whose images are independent of those of other prompts; or that of the one set."""
    if len(found) == 1:
        return {"ms_ssim": found[0].value, "ms_ssim_standard_error": found[0].standard_error}
    means = np.array([mean.value for mean in found])
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    return {"ms_ssim": float(means.mean()), "ms_ssim_standard_error": error}


def _members(side: Films) -> dict[str, np.ndarray]:
    """Rows of each prompt that has at least two images; all rows when there are no prompts."""
    if side.prompts is None:
        return {"": np.arange(len(side))} if len(side) > 1 else {}
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(side.prompts):
        rows.setdefault(prompt, []).append(row)
    return {prompt: np.array(places) for prompt, places in rows.items() if len(places) > 1}


def _prompts(options: measure.Options, name: str, count: int) -> tuple[str, ...] | None:
    given = options.own["prompts"]
    pair = given if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], str) else (given, None)
    texts = pair[0] if name == "predictions" else pair[1]
    if texts is None:
        return None
    if isinstance(texts, str) or len(texts) != count:
        raise ValueError(f"prompts: expected {count} for {name}, one per image, got {len(texts)}")
    return tuple(str(text) for text in texts)


def _grey(film: images.Film, size: int | None) -> np.ndarray:
    """Grey pixels, resized when asked."""
    pixels = images.to_grey(film.pixels)
    if size is not None and pixels.shape != (size, size):
        pixels = np.asarray(PIL.Image.fromarray(pixels).resize((size, size), PIL.Image.Resampling.BICUBIC))
    return pixels
