"""Kernel distance between synthetic and real images. Thin: rows are synthchex.measure, maths synthchex.maths."""

import types
import typing

import numpy as np

import synthchex.maths.kernel as kernel
import synthchex.maths.selections as selections
import synthchex.measure as impl
import synthchex.measure.kernels as kernels
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
    permutations: also return `kid_p_value`, how often sets of one distribution differ so much, from so many random
        exchanges of rows (random signs of patients when `patients` are given); 1000 is usual.
    degree, gamma, coef0: of the kernel (gamma x.y + coef0)^degree; gamma None is one over the width.
    precision: of the products, "float32"; "bfloat16" is a fast mode, "float64" for features far from zero.
    confidence_level: also return the ends of an interval, for example 0.95.
    groups: labels of both sides, for the same numbers per label from the same pass, subsets apart.
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


class KID(kernels.KernelMeasure):
    """Kernel distance; see the card."""

    options = types.MappingProxyType(
        {
            "subsets": None,
            "subset_size": 1000,
            "exact": True,
            "permutations": None,
            "degree": 3,
            "gamma": None,
            "coef0": 1.0,
            "precision": "float32",
            "seed": 2020,
        }
    )

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/1801.01401"])

    def compare(
        self,
        fake: sides.Side,
        real: sides.Side,
        columns: kernel.Columns | None,
        options: impl.Options,
        **asked: typing.Any,
    ) -> kernel.Comparison:
        """One pass over the polynomial kernel."""
        subsets = selections.subset_rows(len(real), len(fake), **_draws(options)) if options.own["subsets"] else ()
        return kernel.compare(real.features, fake.features, columns, subsets=subsets, **_kernel(options), **asked)

    def beside(self, found: kernel.Comparison) -> dict[str, typing.Any]:
        """Mean and spread of the subsets."""
        return _subset_entries(found.subsets) if len(found.subsets) else {}

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Exact kernel distance with its standard error, or that of subsets, or both."""
        if options.own["exact"]:
            return kernels.KernelMeasure.score(self, fake, real, options)
        if not options.own["subsets"]:
            raise ValueError("expected subsets when exact=False, got none; pass subsets=100")
        self.refuse_statistics(fake, real)
        return _subset_entries(
            kernel.subset_distances(real.features, fake.features, **_draws(options), **_kernel(options))
        )

    def all_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
        """From one pass, unless `exact` is off: then groups have passes of their own, over their rows."""
        way = kernels.KernelMeasure if options.own["exact"] else impl.Measure
        return way.all_scores(self, fake, real, groups, options)

    def label_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> dict[str, typing.Any]:
        """Exact distances of groups; subsets are of all rows only."""
        own = {**options.own, "exact": True, "subsets": None}
        return impl.Measure.label_scores(self, fake, real, groups, impl.replaced(options, own))


def _draws(options: impl.Options) -> dict[str, typing.Any]:
    return {key: options.own[key] for key in ("subsets", "subset_size", "seed")}


def _kernel(options: impl.Options) -> dict[str, typing.Any]:
    own = options.own
    shape = kernel.Polynomial(own["degree"], own["gamma"], own["coef0"])
    return {"kernel": shape, "precision": own["precision"]}


def _subset_entries(values: np.ndarray) -> dict[str, float]:
    return {"kid_subset_mean": float(values.mean()), "kid_subset_std": float(values.std())}
