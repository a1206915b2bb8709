"""What all metric modules share as `evaluate` modules: rows kept in memory, sides of any length, groups, processes.

`evaluate` would send each row through Arrow, which refuses unequal counts, makes lists of arrays and re-encodes images.
`Measure` keeps what was given and turns each side into features once; a metric is the one method `score` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import evaluate
import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths.intervals import Interval
from synthchex.measure import given, sides
from synthchex.measure.sides import Side

Groups = dict[str, tuple[np.ndarray, np.ndarray]]
ENCODING = ("encoder", "batch_size", "device", "dtype", "aspect", "protocol")


@dataclass(frozen=True)
class Options:
    """Options of `compute` that every metric understands."""

    seed: int = 0
    confidence_level: float | None = None
    groups: Any = None
    patients: Any = None
    own: Mapping[str, Any] = field(default_factory=dict)


class Measure(evaluate.Metric):
    """An `evaluate` metric over features of two sets of images; subclasses say `_info`, `options` and `score`."""

    options: Mapping[str, Any] = MappingProxyType({})
    """Options of this metric alone, with their defaults."""
    headline: tuple[str, ...] = ()
    """Names of the main results; the module's name when empty."""
    image_text = False
    """Whether films go through an image-text encoder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._given: dict[str, list[Any]] = {"predictions": [], "references": []}
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
        parts, self._given = self._given, {"predictions": [], "references": []}
        for name, part in self._sorted(predictions, references).items():
            parts[name].append(part)
        missing = [name for name, rows in parts.items() if not rows]
        if missing:
            raise ValueError(f"expected predictions and references, got no {' and no '.join(missing)}; add them first")
        encoding = sides.Encoding(
            **{key: kwargs[key] for key in ENCODING if kwargs.get(key) is not None}, image_text=self.image_text
        )
        if encoding.encoder is None and self.config_name != "default":
            encoding.encoder = self.config_name
        options, warnings = self._options(kwargs)
        fake = encoding.features(parts["predictions"], "predictions")
        real = encoding.texts(parts["references"], "references")
        options = replaced(options, self.prepare(encoding, options))
        groups = parse_groups(options.groups, len(fake), len(real)) if options.groups is not None else {}
        if self.num_process > 1:
            fake, real, groups = _gathered(fake, real, groups)
            if self.process_id != 0:
                return None
        warnings += sides.check_same(fake, real)
        result = self.score(fake, real, options) | self.facts(fake, real)
        result["warnings"] = warnings + result.get("warnings", [])
        if groups:
            result["labels"] = self.label_scores(fake, real, groups, options)
        return result

    def prepare(self, encoding: sides.Encoding, options: Options) -> Mapping[str, Any]:
        """The metric's own options, with whatever has to be encoded encoded."""
        return options.own

    def score(self, fake: Side, real: Side, options: Options) -> dict[str, Any]:
        """Results of this metric, with `warnings` where there are any."""
        raise NotImplementedError

    def fewest(self, options: Options) -> int:
        """Fewest rows of a side that `score` accepts."""
        return 2

    def facts(self, fake: Side, real: Side) -> dict[str, Any]:
        """Counts and encoder, added to every result."""
        return {
            "n_predictions": len(fake) if fake.moments is None else fake.count,
            "n_references": len(real) if real.moments is None else real.count,
            "encoder": fake.encoder if fake.encoder != sides.UNNAMED else real.encoder,
        }

    def label_scores(self, fake: Side, real: Side, groups: Groups, options: Options) -> dict[str, Any]:
        """`score` of each group from the same features; too small a group has no number but a warning that says so."""
        if fake.moments is not None or real.moments is not None:
            raise ValueError(
                "groups: expected features or images on both sides, got statistics; they cannot be divided"
            )
        results = {}
        for label, (chosen_fake, chosen_real) in groups.items():
            part_fake, part_real = fake.take(chosen_fake), real.take(chosen_real)
            counts = {"n_predictions": len(part_fake), "n_references": len(part_real)}
            lacking = too_few(counts, self.fewest(options))
            selected = _select_patients(options, chosen_fake, chosen_real)
            found = {"warnings": [lacking]} if lacking else self.score(part_fake, part_real, selected)
            results[label] = {**(dict.fromkeys(self.headline or (self.name,)) if lacking else {}), **found, **counts}
            results[label].setdefault("warnings", [])
        return results

    def _sorted(self, predictions: Any, references: Any) -> dict[str, Any]:
        both = {"predictions": predictions, "references": references}
        return {name: self.sort(name, source) for name, source in both.items() if source is not None}

    def sort(self, name: str, source: Any) -> Any:
        """The kind of a side; a metric whose references are texts overrides it."""
        return given.sort(source, name)

    def _options(self, kwargs: Mapping[str, Any]) -> tuple[Options, list[str]]:
        shared = {
            key: kwargs[key]
            for key in ("seed", "confidence_level", "groups", "patients")
            if kwargs.get(key) is not None
        }
        own = {key: kwargs.get(key, default) for key, default in self.options.items()}
        # Combined modules get each other's options, so an unknown one is not an error; but it is said.
        unused = sorted(set(kwargs) - set(ENCODING) - set(self.options) - set(Options.__dataclass_fields__))
        return Options(own=own, **shared), [f"option {key!r} is not used by {self.name}" for key in unused]


def info(description: str, usage: str, citation: str, urls: Sequence[str] = ()) -> evaluate.MetricInfo:
    """`MetricInfo` of a module; the declared types are documentation only, rows never pass through Arrow."""
    from datasets import Features, Value

    return evaluate.MetricInfo(
        description=description,
        inputs_description=usage,
        citation=citation,
        features=Features({"predictions": Value("string"), "references": Value("string")}),
        reference_urls=list(urls),
    )


def replaced(options: Options, own: Mapping[str, Any]) -> Options:
    """The same options with other values of the metric's own."""
    return replace(options, own=own)


def with_interval(name: str, interval: Interval | None) -> dict[str, float]:
    """Flat entries of an interval: `<name>_low`, `<name>_high`, `<name>_standard_error`."""
    if interval is None:
        return {}
    ends = {"low": interval.low, "high": interval.high, "standard_error": interval.standard_error}
    return {f"{name}_{key}": float(value) for key, value in ends.items()}


def too_few(counts: Mapping[str, int], fewest: int) -> str | None:
    """A sentence when a side has too few rows."""
    lacking = {name: count for name, count in counts.items() if count < fewest}
    if not lacking:
        return None
    return f"insufficient n: expected at least {fewest} rows, got " + ", ".join(
        f"{v} {k[2:]}" for k, v in lacking.items()
    )


def parse_groups(groups: Any, predictions: int, references: int) -> Groups:
    """Row masks of both sides for each label.

    Args:
        groups: {label: (mask of predictions, mask of references)}; or (labels of predictions, labels of references),
            each an array (N, 14) of CheXpert states in the usual order or a list of `labels_dict`: 1 belongs, else not.
        predictions: rows of that side.
        references: rows of that side.

    Raises:
        ValueError: of another form, or of another length.
    """
    if isinstance(groups, Mapping):
        pairs = {str(label): tuple(pair) for label, pair in groups.items()}
    elif isinstance(groups, Sequence) and len(groups) == 2:
        left, right = _positive(groups[0], "predictions"), _positive(groups[1], "references")
        pairs = {label: (left[:, column], right[:, column]) for column, label in enumerate(LABELS)}
    else:
        raise ValueError(
            "groups: expected {label: (mask of predictions, mask of references)} or a pair of label arrays (N, 14), "
            f"got {type(groups).__name__}"
        )
    return {label: _masks(label, pair, (predictions, references)) for label, pair in pairs.items()}


def patients_of(options: Options, predictions: int, references: int) -> tuple[Any, Any]:
    """Cluster ids of both sides from `patients=(ids of predictions or None, ids of references or None)`.

    Raises:
        ValueError: not a pair, or ids of another length.
    """
    if options.patients is None:
        return None, None
    if not isinstance(options.patients, Sequence) or len(options.patients) != 2:
        raise ValueError("patients: expected (ids of predictions or None, ids of references or None)")
    for ids, count, name in zip(
        options.patients, (predictions, references), ("predictions", "references"), strict=True
    ):
        if ids is not None and len(ids) != count:
            raise ValueError(f"patients: expected {count} ids for {name}, one per row, got {len(ids)}")
    return options.patients[0], options.patients[1]


def _masks(label: str, pair: tuple[Any, ...], counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    if len(pair) != 2:
        raise ValueError(f"groups[{label!r}]: expected a pair of masks, got {len(pair)} of them")
    masks = []
    for mask, count, name in zip(pair, counts, ("predictions", "references"), strict=True):
        values = np.asarray(mask)
        if values.shape != (count,) or values.dtype.kind not in "bui" or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"groups[{label!r}]: expected {count} true or false values for {name}, got {values.dtype} of shape "
                f"{values.shape}"
            )
        masks.append(values.astype(bool))
    return masks[0], masks[1]


def _positive(labels: Any, name: str) -> np.ndarray:
    """(N, 14) bool from states in the usual order, or from labels_dicts."""
    if isinstance(labels, Sequence) and len(labels) and isinstance(labels[0], Mapping):
        return np.array([[row.get(label) == 1 for label in LABELS] for row in labels])
    values = np.asarray(labels)
    if values.ndim != 2 or values.shape[1] != len(LABELS):
        raise ValueError(f"groups: expected labels of shape (N, {len(LABELS)}) for {name}, got {values.shape}")
    return np.asarray(values == 1)


def _select_patients(options: Options, fake: np.ndarray, real: np.ndarray) -> Options:
    if options.patients is None:
        return options
    chosen = [
        None if ids is None else np.asarray(ids)[mask] for ids, mask in zip(options.patients, (fake, real), strict=True)
    ]
    return replace(options, patients=chosen)


def _gathered(fake: Side, real: Side, groups: Groups) -> tuple[Side, Side, Groups]:
    """Rows of all processes in order of rank, on every process."""
    from torch import distributed

    if not distributed.is_initialized():
        raise ValueError(
            "expected a process group for num_process > 1, got none; create accelerate.PartialState() first, or leave "
            "num_process out when one process has all rows"
        )

    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, (fake, real, groups))
    fakes, reals, masks = zip(*parts, strict=True)
    joined = {
        label: tuple(np.concatenate([part[label][side] for part in masks]) for side in (0, 1)) for label in groups
    }
    return _joined(fakes), _joined(reals), {label: (pair[0], pair[1]) for label, pair in joined.items()}


def _joined(parts: Sequence[Side]) -> Side:
    first = parts[0]
    if first.moments is not None:  # statistics are the same file everywhere
        return first
    union: Callable[[str], tuple[str, ...]] = lambda field: tuple(sorted({v for p in parts for v in getattr(p, field)}))  # noqa: E731
    rows = np.concatenate([part.features for part in parts])
    return Side(rows, first.encoder, first.key, preprocessing=union("preprocessing"), notes=union("notes"))
