"""CMMD between synthetic and real images; thin: sides and rows are synthchex.measure, maths synthchex.maths.cmmd."""

import types
import typing

import synthchex.maths.cmmd as cmmd
import synthchex.maths.kernel as kernel
import synthchex.measure as impl
import synthchex.measure.kernels as kernels
import synthchex.measure.sides as sides

DESCRIPTION = """Squared maximum mean discrepancy of CLIP-like unit embeddings under a Gaussian kernel (sigma 10), times
1000: lower is better. Assumes no Gaussian features; unbiased unless `biased=True`, which is the published form."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms.
    encoder: name, Hub id, folder or object that turns images into unit embeddings; CLIP ViT-L/14 at 336 pixels, as
        published, when left out; "medsiglip" for radiographs.
    method: "exact" over all pairs, or "series": moments only, for unit embeddings, with `cmmd_error_bound`.
    biased: True pairs each image with itself too, as the published code does.
    permutations: also return `cmmd_p_value`, how often sets of one distribution differ so much, from so many random
        exchanges of rows (random signs of patients when `patients` are given); 1000 is usual (exact method).
    sigma: width of the kernel; 10 is the published one.
    scale: factor of the results; 1000 is the published one.
    precision: of the products, "float32"; "bfloat16" is a fast mode, "float64" for tests.
    confidence_level: also return the ends of an interval, for example 0.95 (exact method).
    groups: labels of both sides, for the same numbers per label from the same pass.
    patients: (ids of predictions or None, ids of references or None), left out together in the standard error.
    seed: of the rows that estimate the remainder of the series.
Returns:
    `cmmd`, `cmmd_standard_error` (exact) or `cmmd_error_bound` (series), `cmmd_biased`, n_predictions, n_references,
    encoder, warnings; `labels` when groups are given.
"""
CITATION = """@inproceedings{jayasumana2024rethinking,
  title={Rethinking {FID}: Towards a Better Evaluation Metric for Image Generation},
  author={Jayasumana, Sadeep and Ramalingam, Srikumar and Veit, Andreas and Glasner, Daniel and Chakrabarti, Ayan and
          Kumar, Sanjiv},
  booktitle={Conference on Computer Vision and Pattern Recognition}, year={2024}}"""
METHODS = ("exact", "series")


class CMMD(kernels.KernelMeasure):
    """Discrepancy under a Gaussian kernel; see the card."""

    options = types.MappingProxyType(
        {
            "method": "exact",
            "biased": False,
            "permutations": None,
            "sigma": 10.0,
            "scale": 1000.0,
            "precision": "float32",
        }
    )
    image_text = True
    default_encoder = "clip-large-336"

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2401.09603"])

    def compare(
        self,
        fake: sides.Side,
        real: sides.Side,
        columns: kernel.Columns | None,
        options: impl.Options,
        **asked: typing.Any,
    ) -> kernel.Comparison:
        """One pass over the Gaussian kernel."""
        own = {key: options.own[key] for key in ("biased", "sigma", "scale", "precision")}
        return cmmd.compare(real.features, fake.features, columns, **own, **asked)

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """The discrepancy with its standard error, or with the error bound of the series."""
        if options.own["method"] == "exact":
            return kernels.KernelMeasure.score(self, fake, real, options)
        self.refuse_statistics(fake, real)
        return _series(fake, real, options)

    def all_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
        """From one pass; by the series, from moments of each group."""
        if options.own["method"] not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, got {options.own['method']!r}")
        way = kernels.KernelMeasure if options.own["method"] == "exact" else impl.Measure
        found, labels = way.all_scores(self, fake, real, groups, options)
        form = {"cmmd_biased": bool(options.own["biased"])}
        found["warnings"] = found["warnings"] + _doubts(fake, real)
        return found | form, {label: part | form for label, part in labels.items()}


def _series(fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
    own = options.own
    asked = [key for key in ("confidence_level", "permutations") if {**own, **vars(options)}.get(key)]
    if asked:
        raise ValueError(f"expected method='exact' for {' and '.join(asked)}, got 'series'; moments give no interval")
    shared = {key: own[key] for key in ("biased", "sigma", "scale")}
    found = cmmd.cmmd_series(real.features, fake.features, seed=options.seed, **shared)
    return {"cmmd": found.value, "cmmd_error_bound": found.error_bound, "warnings": []}


def _doubts(fake: sides.Side, real: sides.Side) -> list[str]:
    found = []
    for name, side in (("predictions", fake), ("references", real)):
        if not cmmd.are_unit(side.features):
            shortest, longest = cmmd.lengths(side.features)
            found.append(
                f"{name}: rows have lengths {shortest:.4g} to {longest:.4g}; published values are of unit embeddings"
            )
    return found
