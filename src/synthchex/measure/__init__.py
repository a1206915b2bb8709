"""What all metric modules share as `evaluate` modules: rows kept in memory, sides of any length, groups, processes.

`evaluate` would send each row through Arrow, which refuses unequal counts, makes lists of arrays and re-encodes images.
`Measure` keeps what was given and turns each side into features once; a metric is the one method `score` beside it.
Metrics that live at the same time share encoders and the features of films, see `films`; `forget` frees both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import evaluate

from synthchex.maths.intervals import Interval
from synthchex.measure import films, given, ranks, sides
from synthchex.measure.films import forget
from synthchex.measure.options import (
    Groups,
    Options,
    check_patients,
    numbered,
    parse_groups,
    patients_of,
    replaced,
    select_patients,
    too_few,
)
from synthchex.measure.ranks import Rows
from synthchex.measure.sides import Side

__all__ = [
    "ENCODING",
    "Groups",
    "Measure",
    "Options",
    "Rows",
    "check_patients",
    "defined",
    "forget",
    "info",
    "parse_groups",
    "patients_of",
    "replaced",
    "select_patients",
    "too_few",
    "with_interval",
]
ENCODING = ("encoder", "batch_size", "device", "dtype", "aspect", "protocol", "num_workers")
USAGE = """
Options of every module that is given films:
    batch_size: films of a forward pass, 32 by default.
    num_workers: threads that decode and prepare films while the encoder works; by default the CPUs, at most 4. The
        result does not depend on it.
    device, dtype: where the encoder runs ("cuda:1"), the first GPU by default, and in what type ("bfloat16").
    aspect, protocol: what happens to films that are not square, see `synthchex.models.views`.
Films that another living metric has encoded by the same encoder are not encoded again; `synthchex.measure.forget` frees
what is remembered. Films that are added wait as pixels for `compute`: of many, add paths or features. With
`num_process` above 1 each process gives its own part of everything that has rows.
"""
SHARED = ("seed", "confidence_level", "n_resamples", "groups", "patients")


class Measure(evaluate.Metric):
    """An `evaluate` metric over features of two sets of images; subclasses say `_info`, `options` and `score`."""

    options: Mapping[str, Any] = MappingProxyType({})
    """Options of this metric alone, with their defaults."""
    headline: tuple[str, ...] = ()
    """Names of the main results; the module's name when empty."""
    image_text = False
    """Whether films go through an image-text encoder."""
    default_encoder: str | None = None
    """Encoder of films when none is asked for; None: that of `encoders`."""
    resamples = False
    """Whether the interval resamples, so that `n_resamples` has a meaning; else it is analytic."""
    needed: tuple[str, ...] = ("predictions", "references")
    """Sides without which there is no result."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._given: dict[str, list[Any]] = {"predictions": [], "references": []}
        self._memo = films.shared_memo()
        evaluate.Metric.__init__(self, *args, **kwargs)

    def __len__(self) -> int:
        return sum(part.count or 0 for part in self._given["predictions"])

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one image, or one row of features, to either side or both."""
        prediction = kwargs.get("predictions") if prediction is None else prediction
        reference = kwargs.get("references") if reference is None else reference
        self.add_batch(
            predictions=None if prediction is None else [prediction],
            references=None if reference is None else [reference],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add images or features to either side or both; counts may differ. Pixels are taken as they are now."""
        # Sort both before keeping either: a refused batch adds nothing.
        parts = self._sorted(predictions, references)
        for name, part in parts.items():
            self._given[name].append(part.snapshot())

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """The metric over everything added and given here, as a flat dict of plain numbers; what was added is dropped.

        With `num_process` above 1 all processes take part and the first one gets the result, the others None.
        """
        added, self._given = self._given, {"predictions": [], "references": []}
        encoding = self._encoding(kwargs)
        options, warnings = self._options(kwargs)

        def read() -> Rows:
            for name, part in self._sorted(predictions, references).items():
                added[name].append(part)
            return self._rows(added, encoding, options)

        rows = ranks.gathered(read, self.num_process) if self.num_process > 1 else read()
        if self.process_id != 0:
            return None
        ids = None if rows.patients is None else (numbered(rows.patients[0]), numbered(rows.patients[1]))
        options = replace(options, own=rows.own, patients=ids)
        if rows.real is not None:
            warnings += self.check_same(rows.fake, rows.real)
        found, labels = self.all_scores(rows.fake, rows.real, rows.groups or {}, options)
        result = found | self.facts(rows.fake, rows.real)
        result["warnings"] = warnings + result.get("warnings", []) + _unused_patients(result, options)
        if rows.groups:
            result["labels"] = {label: _without_nan(part) for label, part in labels.items()}
        return _without_nan(result)

    def prepare(self, encoding: sides.Encoding, options: Options, fake: Any, real: Any) -> Mapping[str, Any]:
        """The metric's own options, with whatever has to be encoded encoded."""
        return options.own

    def side(self, encoding: sides.Encoding, parts: Sequence[Any], name: str, options: Options) -> Any:
        """One side as `score` wants it: has a length, `take(mask)`, `encoder`, and a class method `joined`."""
        return encoding.features(parts, name) if name == "predictions" else encoding.texts(parts, name)

    def masks(self, groups: Any, predictions: int, references: int | None) -> Groups:
        """Row masks of each label, see `parse_groups`."""
        return parse_groups(groups, predictions, references or 0)

    def check_same(self, fake: Any, real: Any) -> list[str]:
        """Refuse sides that cannot be compared; return what is doubtful."""
        return sides.check_same(fake, real)

    def all_scores(
        self, fake: Any, real: Any, groups: Groups, options: Options
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Results for all rows and for each group; a metric that gets both from one pass overrides it."""
        found = self.whole(fake, real, options)
        return found, self.label_scores(fake, real, groups, options) if groups else {}

    def whole(self, fake: Any, real: Any, options: Options) -> dict[str, Any]:
        """Results for all rows."""
        return self.score(fake, real, options)

    def score(self, fake: Side, real: Side, options: Options) -> dict[str, Any]:
        """Results of this metric, with `warnings` where there are any."""
        raise NotImplementedError

    def fewest(self, options: Options) -> int:
        """Fewest rows of a side that `score` accepts."""
        return 2

    def names(self, options: Options) -> tuple[str, ...]:
        """Keys of the main results."""
        return self.headline or (self.name,)

    def facts(self, fake: Side, real: Side) -> dict[str, Any]:
        """Counts and encoder, added to every result."""
        return {
            "n_predictions": len(fake) if fake.moments is None else fake.count,
            "n_references": len(real) if real.moments is None else real.count,
            "encoder": fake.encoder if fake.encoder != sides.UNNAMED else real.encoder,
        }

    def label_scores(self, fake: Side, real: Side, groups: Groups, options: Options) -> dict[str, Any]:
        """`score` of each group from the same features; what has no number has a warning that says why."""
        if fake.moments is not None or real.moments is not None:
            raise ValueError(
                "groups: expected features or images on both sides, got statistics; they cannot be divided"
            )
        results = {}
        for label, (left, right) in groups.items():
            part, other = fake.take(left), real.take(right)
            counts = {"n_predictions": len(part), "n_references": len(other)}
            chosen, lacking = select_patients(options, left, right), too_few(counts, self.fewest(options))
            found = {"warnings": [lacking]} if lacking else defined(self.score, part, other, chosen)
            results[label] = {**dict.fromkeys(self.names(options)), "warnings": [], **found, **counts}
        return results

    def sort(self, name: str, source: Any) -> Any:
        """The kind of a side; a metric whose references are texts overrides it."""
        return given.sort(source, name)

    def _sorted(self, predictions: Any, references: Any) -> dict[str, Any]:
        both = {"predictions": predictions, "references": references}
        return {name: self.sort(name, source) for name, source in both.items() if source is not None}

    def _encoding(self, kwargs: Mapping[str, Any]) -> sides.Encoding:
        asked = {key: kwargs[key] for key in ENCODING if kwargs.get(key) is not None}
        if self.config_name != "default":
            asked.setdefault("encoder", self.config_name)
        return sides.Encoding(**asked, image_text=self.image_text, default=self.default_encoder, memo=self._memo)

    def _options(self, kwargs: Mapping[str, Any]) -> tuple[Options, list[str]]:
        shared = {key: kwargs[key] for key in SHARED if kwargs.get(key) is not None}
        own = {key: kwargs.get(key, default) for key, default in self.options.items()}
        # Combined modules get each other's options, so an unknown one is not an error; but it is said.
        unused = sorted(set(kwargs) - set(ENCODING) - set(self.options) - set(SHARED))
        said = [f"option {key!r} is not used by {self.name}" for key in unused]
        if "n_resamples" in shared and not self.resamples:
            said.append(f"option 'n_resamples' is not used by {self.name}: its interval does not resample")
        elif "n_resamples" in shared and "confidence_level" not in shared:
            said.append("option 'n_resamples' is not used without confidence_level")
        return Options(own=own, **shared), said

    def _rows(self, parts: Mapping[str, Sequence[Any]], encoding: sides.Encoding, options: Options) -> Rows:
        """What this process was given, read and encoded."""
        missing = [name for name in self.needed if not parts[name]]
        if missing:
            raise ValueError(f"expected {' and '.join(self.needed)}, got no {' and no '.join(missing)}; add them first")
        fake = self.side(encoding, parts["predictions"], "predictions", options)
        real = self.side(encoding, parts["references"], "references", options) if parts["references"] else None
        counts = len(fake), None if real is None else len(real)
        groups = None if options.groups is None else self.masks(options.groups, *counts)
        patients = check_patients(options.patients, *counts)
        return Rows(fake, real, groups, patients, self.prepare(encoding, options, fake, real))


def defined(score: Callable[[Any, Any, Options], dict[str, Any]], fake: Any, real: Any, options: Options) -> Any:
    """`score` of a part of the rows; without interval, or without number, where that is not defined, and why.

    What the whole set has passed can only fail for want of rows here: one patient, equal images.
    """
    try:
        return score(fake, real, options)
    except ValueError as error:
        if options.confidence_level is None:
            return {"warnings": [f"not defined: {error}"]}
        found = defined(score, fake, real, replace(options, confidence_level=None))
        return {**found, "warnings": [*found.get("warnings", []), f"no interval: {error}"]}


def _without_nan(result: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is not a number, and a warning that says so."""
    undefined = [key for key, value in result.items() if isinstance(value, float) and math.isnan(value)]
    if not undefined:
        return result
    told = f"not defined for so few independent rows: {', '.join(undefined)}"
    return {**result, **dict.fromkeys(undefined), "warnings": [*result["warnings"], told]}


def _unused_patients(result: Mapping[str, Any], options: Options) -> list[str]:
    if options.patients is None or any(key.endswith("standard_error") for key in result):
        return []
    return ["option 'patients' is not used: it is for intervals, and there is none; pass confidence_level"]


def info(description: str, usage: str, citation: str, urls: Sequence[str] = ()) -> evaluate.MetricInfo:
    """`MetricInfo` of a module; the declared types are documentation only, rows never pass through Arrow."""
    from datasets import Features, Value

    return evaluate.MetricInfo(
        description=description,
        inputs_description=usage + USAGE,
        citation=citation,
        features=Features({"predictions": Value("string"), "references": Value("string")}),
        reference_urls=list(urls),
    )


def with_interval(name: str, interval: Interval | None) -> dict[str, float]:
    """Flat entries of an interval: `<name>_low`, `<name>_high`, `<name>_standard_error`."""
    if interval is None:
        return {}
    ends = {"low": interval.low, "high": interval.high, "standard_error": interval.standard_error}
    return {f"{name}_{key}": float(value) for key, value in ends.items()}
