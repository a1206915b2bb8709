"""What metrics of the synthetic set alone share: references are optional, and are only measured the same way beside it.

A diversity of 12 says nothing by itself; that the real set has 31 does. `Solo` is `measure.Measure` without the demand
for both sides. A metric says how one side is read (`side`) and what it scores (`alone`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from synthchex.data.records import LABELS
from synthchex.measure import ENCODING, Groups, Measure, Options, parse_groups, replaced, sides, too_few

Two = tuple[Any, Any]


class Solo(Measure):
    """An `evaluate` metric of one set of images; subclasses say `_info`, `options` and `alone`."""

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """The metric over everything added and given here; references are optional and are scored beside it.

        With `num_process` above 1 all processes take part and the first one gets the result, the others None.
        """
        parts, self._given = self._given, {"predictions": [], "references": []}
        for name, part in self._sorted(predictions, references).items():
            parts[name].append(part)
        if not parts["predictions"]:
            raise ValueError("expected predictions, got none; add them first")
        encoder = {key: kwargs[key] for key in ENCODING if kwargs.get(key) is not None}
        if self.config_name != "default":
            encoder.setdefault("encoder", self.config_name)
        encoding = sides.Encoding(**encoder, image_text=self.image_text)
        options, warnings = self._options(kwargs)
        options = replaced(options, self.prepare(encoding, options))
        fake = self.side(encoding, parts["predictions"], "predictions", options)
        real = self.side(encoding, parts["references"], "references", options) if parts["references"] else None
        groups = one_sided_groups(options.groups, len(fake), None if real is None else len(real))
        if self.num_process > 1:
            fake, real, groups = self._gathered(fake, real, groups)
            if self.process_id != 0:
                return None
        if real is not None:
            warnings += self.check_same(fake, real)
        result = self._beside(fake, real, options) | self.counts(fake, real) | {"encoder": fake.encoder}
        result["warnings"] = warnings + result.get("warnings", [])
        if groups:
            result["labels"] = self._label_scores(fake, real, groups, options)
        return result

    def side(self, encoding: sides.Encoding, parts: Sequence[Any], name: str, options: Options) -> Any:
        """One side, as `alone` wants it: has a length, `take(mask)` and `encoder`. By default its features."""
        found = encoding.features(parts, name)
        if found.moments is not None:
            raise ValueError(f"{name}: expected images or features, got statistics; {self.name} needs every row")
        return found

    def alone(self, side: Any, options: Options) -> dict[str, Any]:
        """Results for one side, with `warnings` where there are any."""
        raise NotImplementedError

    def names(self, options: Options) -> tuple[str, ...]:
        """Keys of the main results."""
        return self.headline or (self.name,)

    def check_same(self, fake: Any, real: Any) -> list[str]:
        """Refuse sides that cannot be compared; return what is doubtful."""
        return sides.check_same(fake, real)

    def join(self, parts: Sequence[Any]) -> Any:
        """One side from those of all processes."""
        return replace(parts[0], features=np.concatenate([part.features for part in parts]))

    def counts(self, fake: Any, real: Any) -> dict[str, int]:
        """Rows of both sides; 0 references when there are none."""
        return {"n_predictions": len(fake), "n_references": 0 if real is None else len(real)}

    def _beside(self, fake: Any, real: Any, options: Options) -> dict[str, Any]:
        """Scores of the synthetic side, and the main ones of the real side as `<name>_references`."""
        result = self.alone(fake, options)
        if real is None:
            return result
        enough = len(real) >= self.fewest(options)
        own = self.alone(real, replace(options, confidence_level=None)) if enough else {}
        return result | {f"{key}_references": own.get(key) for key in self.names(options) if key in result}

    def _label_scores(self, fake: Any, real: Any, groups: Groups, options: Options) -> dict[str, Any]:
        results = {}
        for label, (left, right) in groups.items():
            part, other = fake.take(left), None if real is None else real.take(right)
            n = self.counts(part, other)
            lacking = too_few({"n_predictions": n["n_predictions"]}, self.fewest(options))
            if lacking:
                results[label] = {**dict.fromkeys(self.names(options)), **n, "warnings": [lacking]}
                continue
            results[label] = {"warnings": [], **self._beside(part, other, _selected(options, left)), **n}
        return results

    def _gathered(self, fake: Any, real: Any, groups: Groups) -> tuple[Any, Any, Groups]:
        """Rows of all processes in order of rank, on every process."""
        from torch import distributed

        if not distributed.is_initialized():
            raise ValueError(
                "expected a process group for num_process > 1, got none; create accelerate.PartialState() first, or "
                "leave num_process out when one process has all rows"
            )
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, (fake, real, groups))
        fakes, reals, masks = zip(*parts, strict=True)
        joined = {
            label: (
                np.concatenate([part[label][0] for part in masks]),
                np.concatenate([part[label][1] for part in masks]),
            )
            for label in groups
        }
        return self.join(fakes), None if real is None else self.join(reals), joined


def one_sided_groups(groups: Any, predictions: int, references: int | None) -> Groups:
    """Row masks per label, from the forms of `parse_groups` or from those of one side alone.

    Args:
        groups: {label: mask}, {label: (mask, mask)}, labels (N, 14), a list of `labels_dict`, or a pair of labels.
        predictions: rows of that side.
        references: rows of that side, None when there is none.

    Raises:
        ValueError: of another form or length; masks of predictions alone although there are references.
    """
    if groups is None:
        return {}
    if references is not None:
        return parse_groups(groups, predictions, references)
    if isinstance(groups, Mapping):
        alone: Any = {label: (_first(mask), np.zeros(0, bool)) for label, mask in groups.items()}
    else:
        alone = (_first(groups), np.zeros((0, len(LABELS))))
    return parse_groups(alone, predictions, 0)


def _first(of_one_or_two: Any) -> Any:
    """The predictions' half of a pair, or what was given for them alone; only a tuple is a pair."""
    return of_one_or_two[0] if isinstance(of_one_or_two, tuple) and len(of_one_or_two) == 2 else of_one_or_two


def _selected(options: Options, rows: np.ndarray) -> Options:
    """The options for some predictions."""
    if options.patients is None:
        return options
    ids = options.patients[0]
    return replace(options, patients=(None if ids is None else np.asarray(ids)[rows], None))
