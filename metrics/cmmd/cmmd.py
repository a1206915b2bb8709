"""CMMD between synthetic and real images; thin: sides and rows are synthchex.measure, maths synthchex.maths.cmmd."""

import types
import typing

import synthchex.maths.cmmd as cmmd
import synthchex.maths.intervals as intervals
import synthchex.measure as impl
import synthchex.measure.sides as sides

DESCRIPTION = """Squared maximum mean discrepancy of CLIP-like unit embeddings under a Gaussian kernel (sigma 10), times
1000: lower is better. Assumes no Gaussian features; unbiased unless `biased=True`, which is the published form."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: real images, in any of these forms.
    encoder: name, Hub id, folder or object that turns images into unit embeddings.
    method: "exact" over all pairs, or "series": moments only, for unit embeddings, with `cmmd_error_bound`.
    biased: True pairs each image with itself too, as the published code does.
    sigma: width of the kernel; 10 is the published one.
    scale: factor of the results; 1000 is the published one.
    precision: of the products, "float32"; "bfloat16" is a fast mode, "float64" for tests.
    confidence_level: also return the ends of an interval, for example 0.95 (exact method).
    groups: labels of both sides, for the same numbers per label.
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


class CMMD(impl.Measure):
    """Discrepancy under a Gaussian kernel; see the card."""

    options = types.MappingProxyType(
        {"method": "exact", "biased": False, "sigma": 10.0, "scale": 1000.0, "precision": "float32"}
    )
    image_text = True

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2401.09603"])

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """The discrepancy with its standard error, or with the error bound of the series."""
        own = options.own
        if fake.moments or real.moments:
            raise ValueError("cmmd: expected images or features, got statistics; a kernel distance needs every row")
        if own["method"] not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, got {own['method']!r}")
        shared = {"biased": bool(own["biased"]), "sigma": own["sigma"], "scale": own["scale"]}
        found = (
            _series(fake, real, options, shared) if own["method"] == "series" else _exact(fake, real, options, shared)
        )
        return found | {"cmmd_biased": shared["biased"], "warnings": _doubts(fake, real)}


def _series(
    fake: sides.Side, real: sides.Side, options: impl.Options, shared: dict[str, typing.Any]
) -> dict[str, typing.Any]:
    if options.confidence_level:
        raise ValueError("expected method='exact' for confidence_level, got 'series'; moments give no interval")
    found = cmmd.cmmd_series(real.features, fake.features, seed=options.seed, **shared)
    return {"cmmd": found.value, "cmmd_error_bound": found.error_bound}


def _exact(
    fake: sides.Side, real: sides.Side, options: impl.Options, shared: dict[str, typing.Any]
) -> dict[str, typing.Any]:
    fake_ids, real_ids = impl.patients_of(options, len(fake), len(real))
    found = cmmd.cmmd(
        real.features,
        fake.features,
        precision=options.own["precision"],
        real_clusters=real_ids,
        fake_clusters=fake_ids,
        **shared,
    )
    result: dict[str, typing.Any] = {"cmmd": found.value, "cmmd_standard_error": found.standard_error}
    if options.confidence_level:
        ends = intervals.normal(found.value, found.standard_error, confidence=options.confidence_level)
        result |= impl.with_interval("cmmd", ends)
    return result


def _doubts(fake: sides.Side, real: sides.Side) -> list[str]:
    found = []
    for name, side in (("predictions", fake), ("references", real)):
        if not cmmd.are_unit(side.features):
            shortest, longest = cmmd.lengths(side.features)
            found.append(
                f"{name}: rows have lengths {shortest:.4g} to {longest:.4g}; published values are of unit embeddings"
            )
    return found
