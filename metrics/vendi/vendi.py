"""Vendi score of synthetic images; thin: sides and rows are synthchex.measure.solo, maths synthchex.maths.vendi."""

import math
import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.vendi as vendi
import synthchex.measure as measure
import synthchex.measure.sides as sides
import synthchex.measure.solo as impl

DESCRIPTION = """Diversity of a set of images: the effective number of different ones, from the eigenvalues of their
cosine similarities. 1 to min(N, D), higher is more diverse. Needs no references; real images are scored beside it."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms; optional, scored in the same way as `vendi_references`.
    encoder: name, Hub id, folder or object that turns images into features.
    orders: one or more q, [1] by default; q = 2 and "inf" see common images only, small q counts rare ones.
    precision: of the products, "float32" or "float64".
    matched: number of rows of each side, drawn at random, that are scored; None scores all. Compare at equal numbers.
    confidence_level: also return the ends of a jackknife interval of each, for example 0.95.
    n_resamples: groups that are left out in turn for it, 20 by default.
    groups: {label: mask}, or labels of one or both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None), left out together in the interval.
    seed: of the rows of `matched` and of the groups that are left out.
Returns:
    `vendi` (q = 1) and `vendi_q<order>` for the others, `vendi_references`, n_predictions, n_references, encoder,
    warnings; `labels` when groups are given.
"""
CITATION = """@article{friedman2023vendi,
  title={The {Vendi} Score: A Diversity Evaluation Metric for Machine Learning},
  author={Friedman, Dan and Dieng, Adji Bousso},
  journal={Transactions on Machine Learning Research}, year={2023}}"""


class Vendi(impl.Solo):
    """Effective number of different images; see the card."""

    options = types.MappingProxyType({"orders": (1,), "precision": "float32", "matched": None})
    resamples = True

    def _info(self) -> typing.Any:
        return measure.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2210.02410"])

    def names(self, options: measure.Options) -> tuple[str, ...]:
        """One name per order."""
        return tuple(_name(order) for order in _orders(options))

    def fewest(self, options: measure.Options) -> int:
        """As many rows as are to be drawn; one image has a diversity of one."""
        return int(options.own["matched"] or 1)

    def alone(self, side: sides.Side, options: measure.Options) -> dict[str, typing.Any]:
        """One score per order, with an interval when asked."""
        orders, precision = _orders(options), options.own["precision"]
        rows = _drawn(len(side), options)
        drawn = side if rows is None else side.take(rows)
        found = vendi.vendi_scores(drawn.features, orders=orders, precision=precision)
        result: dict[str, typing.Any] = {_name(order): value for order, value in zip(orders, found, strict=True)}
        most = min(drawn.features.shape)
        doubt = f"near the largest possible value: {most} for {len(drawn)} rows of {drawn.features.shape[1]} features"
        result["warnings"] = [doubt] if max(found) > 0.5 * most else []
        if options.confidence_level:
            chosen = options if rows is None else measure.select_patients(options, rows)
            result |= _intervals(drawn.features, found, chosen)
        return result

    def whole(self, fake: sides.Side, real: typing.Any, options: measure.Options) -> dict[str, typing.Any]:
        """The same of the references beside it, and a warning where the two do not compare."""
        result = impl.Solo.whole(self, fake, real, options)
        if real is not None and len(fake) != len(real) and not options.own["matched"]:
            fewer = min(len(fake), len(real))
            result["warnings"] = [*result["warnings"], f"counts differ: pass matched={fewer} to compare the two sides"]
        return result


def _intervals(features: np.ndarray, values: list[float], options: measure.Options) -> dict[str, float]:
    orders, ids = _orders(options), None if options.patients is None else options.patients[0]
    blocks = intervals.assign_blocks(
        len(features), ids, blocks=options.n_resamples or intervals.BLOCKS, seed=options.seed, name="predictions"
    )
    found = vendi.vendi_intervals(
        features,
        blocks,
        values,
        orders=orders,
        precision=options.own["precision"],
        confidence=float(options.confidence_level or 0),
    )
    entries = [measure.with_interval(_name(order), ends) for order, ends in zip(orders, found, strict=True)]
    return {key: value for entry in entries for key, value in entry.items()}


def _orders(options: measure.Options) -> list[float]:
    orders = options.own["orders"]
    return [float(order) for order in (orders if isinstance(orders, list | tuple) else [orders])]


def _name(order: float) -> str:
    if order == 1:
        return "vendi"
    return "vendi_qinf" if math.isinf(order) else f"vendi_q{order:g}"


def _drawn(rows: int, options: measure.Options) -> np.ndarray | None:
    """Row numbers of `matched`; None for all of them."""
    count = options.own["matched"]
    if count is None or count == rows:
        return None
    if not 1 <= count <= rows:
        raise ValueError(f"matched must be at least 1 and at most the rows of each side, got {count} for {rows}")
    return np.sort(np.random.default_rng(options.seed).choice(rows, count, replace=False))
