"""Nearest training films beside a null; thin: sides are synthchex.measure, maths synthchex.maths.memorization."""

import types
import typing

import numpy as np

import synthchex.maths.intervals as intervals
import synthchex.maths.memorization as maths
import synthchex.measure as impl
import synthchex.measure.given as given
import synthchex.measure.sides as sides

DESCRIPTION = """Whether synthetic images are nearer to training images than images of new patients are. Every synthetic
image is compared with all training images; held-out real images (or training images beside those of other patients)
say how near is usual. About 0 for a generator that copies nothing."""
USAGE = """
Args:
    predictions: synthetic images: folder, paths, PIL images, uint8 array, float features
        (N, D), .npz, .safetensors, Dataset.
    references: all images that the generator was trained on, in any of these forms.
    encoder: name, Hub id, folder or object that turns images into features.
    held_out: real images of patients that the generator was not trained on, in any of these forms; without them
        training images beside those of the other patients are the null.
    patients: (what makes predictions alike, such as their prompt, or None; patients of references or None).
    held_out_patients: patient of each held-out image; one that references have too is an error.
    false_alarms: share of new patients' images that may be called too near, 0.01 by default.
    nearest_k: which neighbour the NNDR divides by, 2 by default.
    cells: of C_T, 5 at most by default.
    null_films: training images that make the null where there is no held_out, 10,000 at most by default.
    per_sample: also return `memorization_dcr`, `memorization_nndr`, `memorization_row` (the nearest reference),
        `memorization_near` (below the limit) and `memorization_authentic`, as lists.
    confidence_level: of the intervals, 0.95 by default.
    groups: labels, for the same numbers of the predictions of each label beside all references and the whole null.
Returns:
    `memorization` with its interval and p-value, DCR, NNDR, their ratio to the null, shares below the null's quantiles,
    AuthPct, C_T, counts, encoder, warnings; see the card.
"""
CITATION = """@article{meehan2020nonparametric,
  title={A Non-Parametric Test to Detect Data-Copying in Generative Models},
  author={Meehan, Casey and Chaudhuri, Kamalika and Dasgupta, Sanjoy},
  journal={International Conference on Artificial Intelligence and Statistics}, year={2020}}"""


class Units:
    """Patients of the references and of the held-out images, of one process or joined."""

    def __init__(self, train: typing.Any, held_out: typing.Any) -> None:
        self.train, self.held_out = train, held_out

    @classmethod
    def joined(cls, parts: typing.Sequence["Units"]) -> "Units":
        """Of all processes, in their order."""
        train, held_out = ([getattr(part, name) for part in parts] for name in ("train", "held_out"))
        return cls(*(None if side[0] is None else [own for part in side for own in part] for side in (train, held_out)))

    def check(self) -> None:
        """Refuse patients that are on both sides."""
        if self.train is None or self.held_out is None:
            return
        both = set(self.train) & set(self.held_out)
        if both:
            films = sum(patient in both for patient in self.held_out)
            raise ValueError(
                f"held_out_patients: expected patients that references do not have, got {len(both)} that they have "
                f"({films} of {len(self.held_out)} held-out images); leave those images out, they are no null"
            )


class Memorization(impl.Measure):
    """Nearness to training images beside a null; see the card."""

    options = types.MappingProxyType(
        {
            "held_out": None,
            "held_out_patients": None,
            "false_alarms": 0.01,
            "nearest_k": 2,
            "cells": 5,
            "null_films": maths.NULL_FILMS,
            "per_sample": False,
        }
    )
    headline = ("memorization", "dcr_ratio")

    def _info(self) -> typing.Any:
        urls = ["https://arxiv.org/abs/2004.05675", "https://arxiv.org/abs/2102.08921"]
        return impl.info(DESCRIPTION, USAGE, CITATION, urls)

    def fewest(self, options: impl.Options) -> int:
        """One image is enough: the null has its own number."""
        return 1

    def prepare(
        self, encoding: sides.Encoding, options: impl.Options, fake: sides.Side, real: sides.Side
    ) -> dict[str, typing.Any]:
        """Encode the held-out images with the same encoder."""
        own, train = dict(options.own), options.patients and options.patients[1]
        if own["held_out"] is None and own["held_out_patients"] is not None:
            raise ValueError("held_out_patients: expected held_out beside them, got none; pass both")
        if own["held_out"] is not None:
            own["held_out"] = encoding.features([given.sort(own["held_out"], "held_out")], "held_out")
            count, pair = len(own["held_out"]), (None, own["held_out_patients"])
            own["held_out_patients"] = _told_of("references", lambda: impl.check_patients(pair, 0, count))[1]
        own["held_out_patients"] = Units(None if train is None else list(train), own["held_out_patients"])
        return own

    def all_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
        """One search serves all rows and every label."""
        if fake.moments or real.moments:
            raise ValueError("memorization: expected images or features, got statistics; neighbours need every row")
        held, units = options.own["held_out"], options.own["held_out_patients"]
        units.check()
        doubts = [] if held is None else _told_of("predictions", lambda: self.check_same(held, real))
        terms = maths.Terms(
            confidence=options.confidence_level or 0.95,
            **{name: options.own[name] for name in ("false_alarms", "nearest_k", "cells", "null_films")},
        )
        prompts, patients = options.patients or (None, None)
        found = maths.measure(
            fake.features,
            real.features,
            None if held is None else held.features,
            prompts=prompts,
            patients=patients,
            held_out_patients=units.held_out,
            terms=terms,
        )
        result = _result(found) | _per_sample(found, options)
        result["warnings"] = doubts + result["warnings"]
        return result, {label: _label(found, left) for label, (left, _) in groups.items()}


def _told_of(side: str, check: typing.Callable[[], typing.Any]) -> typing.Any:
    """What a check of the held-out images says; it knows two sides only and would name them wrongly."""
    try:
        return check()
    except ValueError as error:
        raise ValueError(str(error).replace(side, "held_out")) from error


def _result(found: maths.Memorization) -> dict[str, typing.Any]:
    said, prompts = found.copying, found.sides[0].units
    result = maths.results(found) | {"warnings": maths.doubts(found)}
    if len(said.dcr if prompts is None else set(prompts)) > 1:
        below = said.dcr < said.memorization.distance
        error = intervals.of_share(below, clusters=prompts).standard_error
        result["memorization_standard_error"] = error / (1 - said.memorization.expected)
    return result


def _label(found: maths.Memorization, rows: np.ndarray) -> dict[str, typing.Any]:
    """The images of one label beside the whole null."""
    count = int(rows.sum())
    if count:
        return _result(maths.part(found, rows)) | {"n_predictions": count}
    names = dict.fromkeys(Memorization.headline)
    return {**names, "warnings": ["insufficient n: expected at least 1 rows, got 0 predictions"], "n_predictions": 0}


def _per_sample(found: maths.Memorization, options: impl.Options) -> dict[str, list[typing.Any]]:
    if not options.own["per_sample"]:
        return {}
    said = found.copying
    facts = {
        "dcr": said.dcr,
        "nndr": np.array([None if np.isnan(value) else float(value) for value in said.nndr], object),
        "row": found.near.rows[:, 0],
        "near": said.dcr < said.limit.distance,
        "authentic": found.authentic,
    }
    return {f"memorization_{name}": values.tolist() for name, values in facts.items()}
