"""Fréchet distance between synthetic and real images. Thin: rows are synthchex.measure, maths synthchex.maths."""

import types
import typing

import numpy as np

import synthchex.maths.frechet as frechet
import synthchex.maths.infinity as infinity
import synthchex.maths.intervals as intervals
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
    n_resamples: groups that are left out in turn for it, 20 by default.
    groups: labels of both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None): rows of a patient stay together in intervals,
        halves and the parts of the extrapolation.
    seed: of whatever is random: parts of the extrapolation, halves, jackknife groups.
Returns:
    `fid` and what was asked for, n_predictions, n_references, encoder, warnings; `labels` when groups are given.
    Intervals are `fid_low`, `fid_high`, `fid_standard_error`, and the same of `fid_infinity`.
"""
CITATION = """@inproceedings{heusel2017gans,
  title={GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium},
  author={Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}}"""

Ids = tuple[typing.Any, typing.Any]  # patients of the predictions and of the references, or None


class FID(impl.Measure):
    """Fréchet distance; see the card."""

    options = types.MappingProxyType({"infinity": False, "floor": False})
    resamples = True

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/1706.08500"])

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Fréchet distance and what was asked for beside it."""
        asked = [key for key in ("infinity", "floor", "confidence_level") if {**options.own, **vars(options)}.get(key)]
        _refuse(asked if fake.moments else [key for key in asked if key != "infinity" and real.moments])
        left: typing.Any = real.moments or real.features
        right: typing.Any = fake.moments or fake.features
        result: dict[str, typing.Any] = {"fid": frechet.frechet_distance(left, right), "warnings": _doubts(fake, real)}
        if not asked:
            return result
        ids = impl.check_patients(options.patients, len(right), None if real.moments else len(left)) or (None, None)
        if options.own["infinity"]:
            _extrapolate(result, left, right, options, ids)
        if options.own["floor"]:
            result |= _floor(left, right, options.seed, ids[1])
        if options.confidence_level:
            result |= _interval(result["fid"], left, right, options, ids)
        return result


def _doubts(fake: sides.Side, real: sides.Side) -> list[str]:
    known = fake.moments or real.moments
    width = known.width if known else fake.features.shape[1]
    counts = {
        "predictions": fake.count if fake.moments else len(fake),
        "references": real.count if real.moments else len(real),
    }
    few = [
        f"FID of {count:,} {name} with {width:,} features is mostly bias (under 2.5 films per feature): see its floor"
        for name, count in counts.items()
        if count and count < 2.5 * width
    ]
    unequal = len(set(counts.values())) > 1 and bool(few)
    return few + (
        ["FID of sides of different sizes: each has its own bias, so compare only values from the same two counts"]
        if unequal
        else []
    )


def _refuse(asked: list[str]) -> None:
    if asked:
        raise ValueError(
            f"expected features or images for {' and '.join(asked)}, got statistics; pass the features themselves"
        )


def _extrapolate(
    result: dict[str, typing.Any], real: typing.Any, fake: np.ndarray, options: impl.Options, ids: Ids
) -> None:
    given: dict[str, typing.Any] = {"seed": options.seed, "fake_clusters": ids[0], "real_clusters": ids[1]}
    try:
        value = infinity.fid_infinity(real, fake, **given).value
        result["fid_infinity"] = value
        if options.confidence_level:
            confidence = float(options.confidence_level)
            blocks = options.n_resamples or intervals.BLOCKS
            found = infinity.infinity_interval(real, fake, value=value, confidence=confidence, blocks=blocks, **given)
            result |= impl.with_interval("fid_infinity", found)
    except ValueError as error:  # too few rows: a label may be small while the whole is not
        result.setdefault("fid_infinity", None)
        result["warnings"].append(f"fid_infinity: {error}")


def _floor(real: np.ndarray, fake: np.ndarray, seed: int, ids: typing.Any) -> dict[str, typing.Any]:
    order = infinity.random_order(len(real), ids, seed)
    half = len(real) // 2
    if ids is not None:  # no patient in both halves
        half = int(np.argmax(np.asarray(ids)[order] == ids[order[half]]))
    count = min(half, len(real) - half, len(fake))
    if count < 2:
        return {"fid_floor": None, "fid_matched": None, "n_floor": count}
    first, second = real[order[:count]], real[order[half : half + count]]
    matched = fake[np.random.default_rng(seed).permutation(len(fake))[:count]]
    return {
        "fid_floor": frechet.frechet_distance(first, second),
        "fid_matched": frechet.frechet_distance(first, matched),
        "n_floor": count,
    }


def _interval(value: float, real: np.ndarray, fake: np.ndarray, options: impl.Options, ids: Ids) -> dict[str, float]:
    found = intervals.of_frechet(
        real,
        fake,
        value=value,
        confidence=float(options.confidence_level or 0),
        blocks=options.n_resamples or intervals.BLOCKS,
        seed=options.seed,
        real_clusters=ids[1],
        fake_clusters=ids[0],
    )
    return impl.with_interval("fid", found)
