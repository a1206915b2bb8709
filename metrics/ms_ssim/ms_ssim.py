"""MS-SSIM within a set, as a sign of mode collapse; thin: sides are synthchex.measure.solo, maths
synthchex.maths.ssim.
"""

import dataclasses
import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.ssim as ssim
import synthchex.measure as measure
import synthchex.measure.sides as sides
import synthchex.measure.solo as impl

DESCRIPTION = """Mean multi-scale structural similarity of pairs of images within the set, a label or a prompt: 0 to 1,
higher means that images repeat (mode collapse). Of grey pixels, no encoder; real images are scored beside it."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, Dataset. All of one size, or pass `size`.
    references: real images, in any of these forms; optional, scored beside as `ms_ssim_references`.
    prompts: one per prediction, or (prompts of predictions, prompts of references): pairs are of equal prompts.
    n_pairs: most pairs of a set, or of a prompt, 100 by default; drawn at random without repetition.
    scales: 5 as published, which needs sides of 161; fewer for smaller images.
    size: resize to size x size first, antialiased; None leaves images as they are.
    confidence_level: also return the ends of an interval, for example 0.95.
    groups: {label: mask}, or labels of one or both sides, for the same numbers per label.
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
    """Grey images of one side."""

    pixels: list[np.ndarray]
    prompts: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    encoder: str = "pixels"

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> "Films":
        """The side with only some rows."""
        places = np.flatnonzero(rows)
        prompts = None if self.prompts is None else tuple(self.prompts[place] for place in places)
        return dataclasses.replace(self, pixels=[self.pixels[place] for place in places], prompts=prompts)


class MsSsim(impl.Solo):
    """Mean pairwise MS-SSIM; see the card."""

    options = types.MappingProxyType({"prompts": None, "n_pairs": 100, "scales": 5, "size": None})

    def _info(self) -> typing.Any:
        return measure.info(DESCRIPTION, USAGE, CITATION, ["https://doi.org/10.1109/ACSSC.2003.1292216"])

    def side(
        self, encoding: sides.Encoding, parts: typing.Sequence[typing.Any], name: str, options: measure.Options
    ) -> Films:
        """Grey films of one side, each read once."""
        kinds = sorted({part.kind for part in parts})
        if kinds != ["films"]:
            raise ValueError(f"{name}: expected images, got {' and '.join(kinds)}; ms_ssim compares pixels")
        read = [_grey(item, name, row, options.own["size"]) for row, item in enumerate(_items(parts))]
        for row, (pixels, _) in enumerate(read):
            ssim.check_image(pixels, row, options.own["scales"])
        films = Films([pixels for pixels, _ in read], _prompts(options, name, len(read)))
        return dataclasses.replace(films, notes=tuple(sorted({note for _, notes in read for note in notes})))

    def check_same(self, fake: Films, real: Films) -> list[str]:
        """Different sizes on the two sides have different statistics."""
        sizes = [sorted({pixels.shape for pixels in side.pixels}) for side in (fake, real)]
        if sizes[0] != sizes[1]:
            return [f"sizes differ: {sizes[0]} for predictions and {sizes[1]} for references; pass size="]
        return []

    def join(self, parts: typing.Sequence[Films]) -> Films:
        """Films of all processes."""
        prompts = [part.prompts for part in parts]
        joined = None if None in prompts else tuple(text for texts in prompts for text in texts or ())
        return Films([pixels for part in parts for pixels in part.pixels], joined)

    def alone(self, side: Films, options: measure.Options) -> dict[str, typing.Any]:
        """Mean similarity of random pairs, within prompts when they are given."""
        random, most = np.random.default_rng(options.seed), options.own["n_pairs"]
        members = _members(side)
        notes = [f"read: {note}" for note in side.notes]
        if not members:
            lacking = "insufficient n: expected 2 images of one prompt, got one image a prompt"
            return {"ms_ssim": None, "warnings": [*notes, lacking]}
        drawn = [rows[ssim.draw_pairs(len(rows), most, random)] for rows in members.values()]
        values = ssim.pair_similarities(side.pixels, np.concatenate(drawn), scales=options.own["scales"])
        ends = np.cumsum([len(pairs) for pairs in drawn])[:-1]
        found = [ssim.mean_of_pairs(part, pairs) for part, pairs in zip(np.split(values, ends), drawn, strict=True)]
        result = _summary(found) | {"n_pairs": len(values), "warnings": notes}
        if side.prompts is not None:
            worst = max(range(len(found)), key=lambda place: found[place].value)
            result |= {"ms_ssim_highest": found[worst].value, "ms_ssim_highest_prompt": list(members)[worst]}
            result["n_prompts"] = len(found)
        if options.confidence_level:
            error = result["ms_ssim_standard_error"]
            ends_of = intervals.normal(result["ms_ssim"], error, confidence=options.confidence_level)
            clipped = ends_of._replace(low=max(0.0, ends_of.low), high=min(1.0, ends_of.high))
            result |= measure.with_interval("ms_ssim", clipped)
        return result


def _summary(found: list[ssim.Mean]) -> dict[str, typing.Any]:
    """Mean over prompts, whose images are independent of those of other prompts; or that of the one set."""
    if len(found) == 1:
        return {"ms_ssim": found[0].value, "ms_ssim_standard_error": found[0].standard_error}
    means = np.array([mean.value for mean in found])
    return {
        "ms_ssim": float(means.mean()),
        "ms_ssim_standard_error": float(means.std(ddof=1) / np.sqrt(len(means))),
    }


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


def _items(parts: typing.Sequence[typing.Any]) -> typing.Iterator[typing.Any]:
    for part in parts:
        for row in range(len(part.items)):
            yield part.items[row]


def _grey(item: typing.Any, name: str, row: int, size: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    import PIL.Image

    import synthchex.data.images as images
    import synthchex.maths.arrays as arrays

    try:
        film = images.read(item.detach().cpu().numpy() if arrays.is_tensor(item) else item)
    except images.UnreadableImage as error:
        raise ValueError(
            f"{name}: image {row} cannot be read ({error.reason}): {error}; repair or remove it"
        ) from error
    pixels = images.to_grey(film.pixels)
    if size is not None and pixels.shape != (size, size):
        pixels = np.asarray(PIL.Image.fromarray(pixels).resize((size, size), PIL.Image.Resampling.BICUBIC))
    return pixels, film.notes
