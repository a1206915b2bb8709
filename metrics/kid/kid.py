"""Kernel distance between synthetic and real images. Thin: rows are synthchex.measure, maths synthchex.maths."""

import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.kernel as kernel
import synthchex.measure as impl
import synthchex.measure.sides as sides

DESCRIPTION = """Squared maximum mean discrepancy of features under a polynomial kernel of degree 3, exact and unbiased:
lower is better, about 0 for equal distributions, slightly negative values are right there."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms.
    encoder: name, Hub id, folder or object that turns images into features.
    subsets: also return `kid_subset_mean` and `kid_subset_std` over so many random subsets, as torch-fidelity does.
    subset_size: rows of each, 1000 by default; at most the smaller side.
    exact: False leaves out `kid` itself, for sets so large that only subsets are affordable.
    degree, gamma, coef0: of the kernel (gamma x.y + coef0)^degree; gamma None is one over the width.
    precision: of the products, "float32"; "bfloat16" is a fast mode, "float64" for features far from zero.
    confidence_level: also return the ends of an interval, for example 0.95.
    groups: labels of both sides, for the same numbers per label from the same pass.
    patients: (ids of predictions or None, ids of references or None), left out together in the standard error.
    seed: of the subsets; 2020 is torch-fidelity's.
Returns:
    `kid`, `kid_standard_error` and what was asked for, n_predictions, n_references, encoder, warnings;
    `labels` when groups are given.
"""
CITATION = """@inproceedings{binkowski2018demystifying,
  title={Demystifying {MMD} {GAN}s},
  author={Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},
  booktitle={International Conference on Learning Representations}, year={2018}}"""


class KID(impl.Measure):
    """Kernel distance; see the card."""

    options = types.MappingProxyType(
        {
            "subsets": None,
            "subset_size": 1000,
            "exact": True,
            "degree": 3,
            "gamma": None,
            "coef0": 1.0,
            "precision": "float32",
            "seed": 2020,
        }
    )

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/1801.01401"])

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Exact kernel distance with its standard error, or that of subsets, or both."""
        _need_features(fake, real)
        shape, precision = _kernel(options), options.own["precision"]
        result: dict[str, typing.Any] = {}
        if options.own["subsets"]:
            found = kernel.subset_distances(
                real.features,
                fake.features,
                subsets=options.own["subsets"],
                subset_size=options.own["subset_size"],
                seed=options.own["seed"],
                kernel=shape,
                precision=precision,
            )
            result = {"kid_subset_mean": float(found.mean()), "kid_subset_std": float(found.std())}
        elif not options.own["exact"]:
            raise ValueError("expected subsets when exact=False, got none; pass subsets=100")
        if options.own["exact"]:
            every = [(np.ones(len(fake), bool), np.ones(len(real), bool))]
            (estimate,) = _estimates(fake, real, every, options)
            result |= _entries(estimate, options)
        return result

    def label_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> dict[str, typing.Any]:
        """Exact kernel distances of all groups from one pass over the kernel."""
        _need_features(fake, real)
        counts = {label: (int(left.sum()), int(right.sum())) for label, (left, right) in groups.items()}
        enough = [label for label, pair in counts.items() if min(pair) >= self.fewest(options)]
        found = _estimates(fake, real, [groups[label] for label in enough], options) if enough else []
        entries: dict[str, dict[str, typing.Any]] = {
            label: _entries(estimate, options) for label, estimate in zip(enough, found, strict=True)
        }
        results: dict[str, typing.Any] = {}
        for label, (left, right) in counts.items():
            n = {"n_predictions": left, "n_references": right}
            lacking = impl.too_few(n, self.fewest(options))
            results[label] = {**entries.get(label, {"kid": None}), **n, "warnings": [lacking] if lacking else []}
        return results


def _need_features(fake: sides.Side, real: sides.Side) -> None:
    if fake.moments or real.moments:
        raise ValueError("kid: expected images or features, got statistics; a kernel distance needs every row")


def _kernel(options: impl.Options) -> kernel.Polynomial:
    return kernel.Polynomial(options.own["degree"], options.own["gamma"], options.own["coef0"])


def _estimates(
    fake: sides.Side, real: sides.Side, selections: list[tuple[np.ndarray, np.ndarray]], options: impl.Options
) -> list[kernel.Estimate]:
    fake_ids, real_ids = impl.patients_of(options, len(fake), len(real))
    return kernel.kernel_distances(
        real.features,
        fake.features,
        np.stack([right for _, right in selections], axis=1),
        np.stack([left for left, _ in selections], axis=1),
        kernel=_kernel(options),
        precision=options.own["precision"],
        real_clusters=real_ids,
        fake_clusters=fake_ids,
    )


def _entries(estimate: kernel.Estimate, options: impl.Options) -> dict[str, float]:
    result = {"kid": estimate.value, "kid_standard_error": estimate.standard_error}
    if options.confidence_level:
        ends = intervals.normal(estimate.value, estimate.standard_error, confidence=options.confidence_level)
        result |= impl.with_interval("kid", ends)
    return result
