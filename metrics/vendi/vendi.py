"""Vendi score of synthetic images; thin: sides and rows are synthchex.measure.solo, maths synthchex.maths.vendi."""

import math
import types
import typing

import numpy as np

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
    groups: {label: mask}, or labels of one or both sides, for the same numbers per label.
    seed: of the rows of `matched`.
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

    def _info(self) -> typing.Any:
        return measure.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2210.02410"])

    def names(self, options: measure.Options) -> tuple[str, ...]:
        """One name per order."""
        return tuple(_name(order) for order in _orders(options))

    def fewest(self, options: measure.Options) -> int:
        """As many rows as are to be drawn; one image has a diversity of one."""
        return int(options.own["matched"] or 1)

    def alone(self, side: sides.Side, options: measure.Options) -> dict[str, typing.Any]:
        """One score per order."""
        orders = _orders(options)
        rows = _drawn(side, options)
        found = vendi.vendi_scores(rows.features, orders=orders, precision=options.own["precision"])
        result: dict[str, typing.Any] = {_name(order): value for order, value in zip(orders, found, strict=True)}
        most = min(rows.features.shape)
        doubts = [f"near the largest possible value: {most} for {len(rows)} rows of {rows.features.shape[1]} features"]
        lacking = ["vendi gives no interval: resampled rows repeat, and repeats are not diverse"]
        return result | {
            "warnings": (doubts if max(found) > 0.5 * most else []) + (lacking if options.confidence_level else [])
        }

    def _beside(self, fake: sides.Side, real: typing.Any, options: measure.Options) -> dict[str, typing.Any]:
        result = impl.Solo._beside(self, fake, real, options)
        if real is not None and len(fake) != len(real) and not options.own["matched"]:
            fewer = min(len(fake), len(real))
            result["warnings"] = [*result["warnings"], f"counts differ: pass matched={fewer} to compare the two sides"]
        return result


def _orders(options: measure.Options) -> list[float]:
    orders = options.own["orders"]
    return [float(order) for order in (orders if isinstance(orders, list | tuple) else [orders])]


def _name(order: float) -> str:
    if order == 1:
        return "vendi"
    return "vendi_qinf" if math.isinf(order) else f"vendi_q{order:g}"


def _drawn(side: sides.Side, options: measure.Options) -> sides.Side:
    count = options.own["matched"]
    if count is None or count == len(side):
        return side
    if not 1 <= count <= len(side):
        raise ValueError(f"matched must be at least 1 and at most the rows of each side, got {count} for {len(side)}")
    return side.take(np.sort(np.random.default_rng(options.seed).choice(len(side), count, replace=False)))
