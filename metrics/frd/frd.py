"""Fréchet radiomics distance; thin: sides and rows are synthchex.measure, maths synthchex.maths.radiomics."""

import csv
import dataclasses
import hashlib
import math
import os
import pathlib
import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.radiomics as radiomics
import synthchex.measure as impl
import synthchex.measure.sides as sides
import synthchex.models.radiomics as extraction

DESCRIPTION = """Fréchet distance between radiomic features (texture, intensity, wavelets) of synthetic and real images,
scaled by the real set, as a logarithm: lower is better. Both conventions are returned: log d and log d^2."""
USAGE = """
Args:
    predictions: radiomic features of synthetic images: a .csv table (one row per image), float (N, D), .npz,
        .safetensors; or images in any form, when pyradiomics is installed.
    references: the same for real images; the same columns.
    encoder: a `synthchex.models.radiomics.RadiomicsEncoder`, for other settings than those of FRD version 1.
    size: images are resized to size x size before extraction, 256 by default.
    num_workers: processes that extract, for images; 0 by default, since they start from the calling script anew.
    confidence_level: also return the ends of a jackknife interval of log d, for example 0.95.
    n_resamples: groups that are left out in turn for it, 20 by default.
    groups: labels of both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None), left out together in the interval.
    seed: of the groups that are left out.
Returns:
    `frd` (log d, the paper's), `frd_log_d2` (log d^2, what frd-score prints), `frd_squared_distance`,
    n_features, n_predictions, n_references, encoder, warnings; `labels` when groups are given.
"""
CITATION = """@article{konz2026frechet,
  title={Fr{\\'e}chet Radiomic Distance ({FRD}): A Versatile Metric for Comparing Medical Imaging Datasets},
  author={Konz, Nicholas and Osuala, Richard and others},
  journal={Medical Image Analysis}, volume={110}, pages={103943}, year={2026}}"""
ROWS_PER_FEATURE = 2.5


class FRD(impl.Measure):
    """Fréchet radiomics distance; see the card."""

    options = types.MappingProxyType({"size": 256})
    resamples = True

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2412.01496"])

    def sort(self, name: str, source: typing.Any) -> typing.Any:
        """Sides as everywhere, and tables in .csv files."""
        if not isinstance(source, str | os.PathLike) or pathlib.Path(source).suffix.lower() != ".csv":
            return impl.Measure.sort(self, name, source)
        columns, rows = _table(pathlib.Path(source), name)
        digest = hashlib.sha256("\n".join(columns).encode()).hexdigest()[:8]
        label = f"radiomics table of {len(columns)} columns {digest}"
        return dataclasses.replace(impl.Measure.sort(self, name, rows), encoder=label)

    def compute(
        self, *, predictions: typing.Any = None, references: typing.Any = None, **kwargs: typing.Any
    ) -> dict[str, typing.Any] | None:
        """FRD over everything added and given here; images go through pyradiomics, whatever encoder others use."""
        asked = kwargs.pop("encoder", None)
        own = asked if isinstance(asked, extraction.RadiomicsEncoder) else None
        kwargs["encoder"] = own or extraction.RadiomicsEncoder(
            size=kwargs.get("size", 256), num_workers=kwargs.get("num_workers") or 0
        )
        result = impl.Measure.compute(self, predictions=predictions, references=references, **kwargs)
        if result is not None and asked not in (None, own, "radiomics"):
            result["warnings"].append("encoder is not used by frd: radiomic features are no network's")
        return result

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Both logarithms, and the squared distance they are of."""
        if fake.moments or real.moments:
            raise ValueError("frd: expected images or features, got statistics; scaling by the real set needs its rows")
        found = radiomics.radiomics_distance(real.features, fake.features)
        result: dict[str, typing.Any] = {
            "frd": found.log_d,
            "frd_log_d2": found.log_d2,
            "frd_squared_distance": found.squared_distance,
            "n_features": found.features,
            "warnings": _doubts(found, {"predictions": len(fake), "references": len(real)}),
        }
        return result | (_interval(found.log_d, fake, real, options) if options.confidence_level else {})


def _doubts(found: radiomics.Radiomics, counts: dict[str, int]) -> list[str]:
    doubts = [
        f"FRD of {count:,} {name} with {found.features} features is mostly bias (fewer than 2.5 films per feature)"
        for name, count in counts.items()
        if count < ROWS_PER_FEATURE * found.features
    ]
    if doubts and len(set(counts.values())) > 1:
        doubts.append(
            "FRD of sides of different sizes: each has its own bias, so compare only values from the same two counts"
        )
    if found.dropped:
        doubts.append(f"{len(found.dropped)} columns left out, constant in the references: {list(found.dropped)[:8]}")
    if math.isinf(found.log_d):
        doubts.append("the two tables are equal: the logarithm of 0 is -inf")
    return doubts


def _interval(value: float, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, float]:
    ids = impl.patients_of(options, len(fake), len(real))
    units = [len(side) if own is None else len(np.unique(own)) for side, own in zip((fake, real), ids, strict=True)]
    blocks = min(options.n_resamples or intervals.BLOCKS, *units)
    left, right = (
        intervals.assign_blocks(len(side), own, blocks=blocks, seed=options.seed + place, name=name)
        for place, (side, own, name) in enumerate(zip((fake, real), ids, ("predictions", "references"), strict=True))
    )
    found = radiomics.radiomics_interval(
        real.features, fake.features, right, left, value=value, confidence=float(options.confidence_level or 0)
    )
    return impl.with_interval("frd", found)


def _table(path: pathlib.Path, name: str) -> tuple[list[str], np.ndarray]:
    """Names and values of the numeric columns of a table with a header; others (file names) are left out."""
    if not path.is_file():
        raise ValueError(f"{name}: expected a table of features, got {str(path)!r}, which is not there")
    with path.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    ragged = [number for number, row in enumerate(rows) if len(row) != len(header)]
    if not rows or ragged:
        got = f"row {ragged[0]} with {len(rows[ragged[0]])}" if ragged else "no rows"
        raise ValueError(f"{name}: expected a header and rows of {len(header)} columns in {path.name}, got {got}")
    columns = {title: [_number(row[place]) for row in rows] for place, title in enumerate(header)}
    # pandas writes the row number under an empty title.
    numeric = {title: values for title, values in columns.items() if title and None not in values}
    if not numeric:
        raise ValueError(f"{name}: expected numeric columns in {path.name}, got {header[:4]}")
    return list(numeric), np.array(list(numeric.values()), np.float64).T


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
