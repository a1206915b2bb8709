"""Precision, recall, density, coverage; thin: sides and rows are synthchex.measure, maths synthchex.maths.neighbors."""

import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.neighbors as neighbors
import synthchex.measure as impl
import synthchex.measure.sides as sides

DESCRIPTION = """How synthetic and real features overlap, by balls to the k-th nearest neighbour. Precision and density
ask whether synthetic images are plausible, recall and coverage whether the real ones are all there. Higher is
better."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms.
    encoder: name, Hub id, folder or object that turns images into features.
    nearest_k: which neighbour sets the radius of a ball, 5 by default; both sides need more rows than that.
    per_sample: also return `prdc_precise`, `prdc_inside_real`, `prdc_covered`, `prdc_reached`,
        `prdc_realism`, and `prdc_rarity` (None outside every real ball), as lists.
    confidence_level: also return the ends of intervals, with the balls held fixed, for example 0.95.
    groups: labels of both sides, for the same numbers per label (balls are drawn among the images of the label).
    patients: (ids of predictions or None, ids of references or None), the independent units of the intervals.
Returns:
    `precision`, `recall`, `density`, `coverage` and what was asked for, n_predictions, n_references, encoder, warnings.
"""
CITATION = """@inproceedings{naeem2020reliable,
  title={Reliable Fidelity and Diversity Metrics for Generative Models},
  author={Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and Yoo, Jaejun},
  booktitle={International Conference on Machine Learning}, year={2020}}"""


class PRDC(impl.Measure):
    """Precision, recall, density, coverage; see the card."""

    options = types.MappingProxyType({"nearest_k": 5, "per_sample": False})
    headline = ("precision", "recall", "density", "coverage")

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2002.09797"])

    def fewest(self, options: impl.Options) -> int:
        """One more than k."""
        return int(options.own["nearest_k"]) + 1

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """The four numbers, and what was asked for beside them."""
        if fake.moments or real.moments:
            raise ValueError("prdc: expected images or features, got statistics; neighbours need every row")
        found = neighbors.overlap(real.features, fake.features, nearest_k=options.own["nearest_k"])
        result: dict[str, typing.Any] = {name: getattr(found, name) for name in self.headline}
        result["warnings"] = _doubts(found, len(fake), len(real))
        if options.own["per_sample"]:
            result |= _per_sample(found, real, fake)
        if options.confidence_level:
            result |= _intervals(found, fake, real, options)
        return result


def _doubts(found: neighbors.Overlap, predictions: int, references: int) -> list[str]:
    copies = {"predictions": int((found.fake_radii == 0).sum()), "references": int((found.real_radii == 0).sum())}
    doubts = [
        f"{count} {name} have {found.nearest_k} exact copies: their balls are empty"
        for name, count in copies.items()
        if count
    ]
    unequal = (
        ["recall and coverage depend on both counts, which differ: compare only values from the same two counts"]
        if predictions != references
        else []
    )
    return doubts + unequal


def _per_sample(found: neighbors.Overlap, real: sides.Side, fake: sides.Side) -> dict[str, list[typing.Any]]:
    realism = neighbors.realism(real.features, fake.features, nearest_k=found.nearest_k, real_radii=found.real_radii)
    facts = {
        "precise": found.precise,
        "inside_real": found.inside_real,
        "covered": found.covered,
        "reached": found.reached,
        "realism": _without_nan(realism),
        "rarity": _without_nan(found.rarity),
    }
    return {f"prdc_{name}": values.tolist() for name, values in facts.items()}


def _without_nan(values: np.ndarray) -> np.ndarray:
    defined = values.astype(object)
    defined[np.isnan(values)] = None
    return defined


def _intervals(found: neighbors.Overlap, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, float]:
    fake_ids, real_ids = impl.patients_of(options, len(fake), len(real))
    level, result = float(options.confidence_level or 0), dict[str, float]()
    for name, hits, ids in (
        ("precision", found.precise, fake_ids),
        ("recall", found.reached, real_ids),
        ("coverage", found.covered, real_ids),
    ):
        result |= impl.with_interval(name, intervals.of_share(hits, clusters=ids, confidence=level))
    density = intervals.of_counts(found.inside_real / found.nearest_k, clusters=fake_ids, confidence=level)
    return result | impl.with_interval("density", density)
