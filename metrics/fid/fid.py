"""Fréchet distance between synthetic and real images. Thin: rows are synthchex.measure, maths synthchex.maths."""

import types
import typing

import numpy as np

import synthchex.maths.frechet as frechet
import synthchex.maths.infinity as infinity
import synthchex.maths.intervals as intervals
import synthchex.maths.moments as moments
import synthchex.measure as impl
import synthchex.measure.sides as sides

DESCRIPTION = """Distance between the Gaussians that fit the features of synthetic and of real images: 0 or more, lower
is better. Biased upwards by about c / N, so compare at equal counts or use `fid_infinity`."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms, or saved statistics (.npz with mu and sigma).
    encoder: name, Hub id, folder or object that turns images into features.
    infinity: also return `fid_infinity`, extrapolated to infinitely many images; needs 2.5 rows per feature. With
        `confidence_level` it gets an interval of its own, three more distances per jackknife group.
    floor: also return `fid_floor`, the distance between two halves of the references, and `fid_matched`, that of the
        synthetic images at the same count `n_floor`.
    confidence_level: also return the ends of a jackknife interval, for example 0.95.
    groups: labels of both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None), left out together in the interval.
    seed: of the random parts (prefixes, halves, jackknife groups).
Returns:
    `fid` and what was asked for, n_predictions, n_references, encoder, warnings; `labels` when groups are given.
"""
CITATION = """@inproceedings{heusel2017gans,
  title={GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium},
  author={Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}}"""


class FID(impl.Measure):
    """Fréchet distance; see the card."""

    options = types.MappingProxyType({"infinity": False, "floor": False})

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/1706.08500"])

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Fréchet distance and what was asked for beside it."""
        left: typing.Any = real.moments or real.features
        right: typing.Any = fake.moments or fake.features
        result: dict[str, typing.Any] = {"fid": frechet.frechet_distance(left, right), "warnings": _doubts(fake, real)}
        asked = [key for key in ("infinity", "floor", "confidence_level") if {**options.own, **vars(options)}.get(key)]
        _refuse(asked if fake.moments else [key for key in asked if key != "infinity" and real.moments])
        if options.own["infinity"]:
            _extrapolate(result, left, right, options)
        if options.own["floor"]:
            result |= _floor(left, right, options.seed)
        if options.confidence_level:
            result |= _interval(result["fid"], fake, real, options)
        return result


def _doubts(fake: sides.Side, real: sides.Side) -> list[str]:
    known = fake.moments or real.moments
    width = known.width if known else fake.features.shape[1]
    counts = {
        "predictions": fake.count if fake.moments else len(fake),
        "references": real.count if real.moments else len(real),
    }
    few = [
        f"n < 2.5 d: {count} {name} for {width} features"
        for name, count in counts.items()
        if count and count < 2.5 * width
    ]
    unequal = len(set(counts.values())) > 1 and bool(few)
    return few + (["counts differ while small: the bias of the two sides differs"] if unequal else [])


def _refuse(asked: list[str]) -> None:
    if asked:
        raise ValueError(
            f"expected features or images for {' and '.join(asked)}, got statistics; pass the features themselves"
        )


def _extrapolate(
    result: dict[str, typing.Any], real: np.ndarray | moments.Moments, fake: np.ndarray, options: impl.Options
) -> None:
    given: dict[str, typing.Any] = {"seed": options.seed}
    if not isinstance(real, moments.Moments):
        fake_ids, real_ids = impl.patients_of(options, len(fake), len(real))
        given |= {"real_clusters": real_ids, "fake_clusters": fake_ids}
    try:
        found = infinity.fid_infinity(real, fake, **given)
        result["fid_infinity"] = found.value
        if options.confidence_level:
            given |= {"value": found.value, "confidence": float(options.confidence_level)}
            result |= impl.with_interval("fid_infinity", infinity.infinity_interval(real, fake, **given))
    except ValueError as error:  # too few rows: a label may be small while the whole is not
        result.setdefault("fid_infinity", None)
        result["warnings"].append(f"fid_infinity: {error}")


def _floor(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, typing.Any]:
    random = np.random.default_rng(seed)
    order, count = random.permutation(len(real)), min(len(real) // 2, len(fake))
    first, second = real[order[:count]], real[order[count : 2 * count]]
    matched = fake[random.permutation(len(fake))[:count]]
    if count < 2:
        return {"fid_floor": None, "fid_matched": None, "n_floor": count}
    return {
        "fid_floor": frechet.frechet_distance(first, second),
        "fid_matched": frechet.frechet_distance(first, matched),
        "n_floor": count,
    }


def _interval(value: float, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, float]:
    fake_ids, real_ids = impl.patients_of(options, len(fake), len(real))
    found = intervals.of_frechet(
        real.features,
        fake.features,
        value=value,
        confidence=float(options.confidence_level or 0),
        seed=options.seed,
        real_clusters=real_ids,
        fake_clusters=fake_ids,
    )
    return impl.with_interval("fid", found)
