"""What metrics of the synthetic set alone share: references are optional, and are only measured the same way beside it.

A diversity of 12 says nothing by itself; that the real set has 31 does. `Solo` is `measure.Measure` without the demand
for both sides. A metric says how one side is read (`side`) and what it scores (`alone`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from synthchex.measure import Groups, Measure, Options, defined, parse_groups, select_patients, sides, too_few


class Solo(Measure):
    """An `evaluate` metric of one set of images; subclasses say `_info`, `options` and `alone`."""

    needed = ("predictions",)

    def side(self, encoding: sides.Encoding, parts: Sequence[Any], name: str, options: Options) -> Any:
        """One side, as `alone` wants it. By default its features."""
        found = encoding.features(parts, name)
        if found.moments is not None:
            raise ValueError(f"{name}: expected images or features, got statistics; {self.name} needs every row")
        return found

    def alone(self, side: Any, options: Options) -> dict[str, Any]:
        """Results for one side, with `warnings` where there are any."""
        raise NotImplementedError

    def masks(self, groups: Any, predictions: int, references: int | None) -> Groups:
        """Row masks of each label, see `one_sided_groups`."""
        return one_sided_groups(groups, predictions, references)

    def facts(self, fake: Any, real: Any) -> dict[str, Any]:
        """Rows of both sides, 0 references when there are none; encoder."""
        return {"n_predictions": len(fake), "n_references": 0 if real is None else len(real), "encoder": fake.encoder}

    def whole(self, fake: Any, real: Any, options: Options) -> dict[str, Any]:
        """Scores of the synthetic side, and the main ones of the real side as `<name>_references`."""
        result = self.alone(fake, options)
        if real is None:
            return result
        enough = len(real) >= self.fewest(options)
        own = self.alone(real, of_references(options)) if enough else {}
        return result | {f"{key}_references": own.get(key) for key in self.names(options) if key in result}

    def label_scores(self, fake: Any, real: Any, groups: Groups, options: Options) -> dict[str, Any]:
        """`whole` of each group; what has no number has a warning that says why."""
        results = {}
        for label, (left, right) in groups.items():
            part, other = fake.take(left), None if real is None else real.take(right)
            counts = {"n_predictions": len(part), "n_references": 0 if other is None else len(other)}
            lacking = too_few({"n_predictions": len(part)}, self.fewest(options))
            chosen = select_patients(options, left) if real is None else select_patients(options, left, right)
            found = {"warnings": [lacking]} if lacking else defined(self.whole, part, other, chosen)
            results[label] = {**dict.fromkeys(self.names(options)), "warnings": [], **found, **counts}
        return results


def of_references(options: Options) -> Options:
    """The options for the side that is scored beside the synthetic one: without interval, with its own patients."""
    ids = None if options.patients is None else (options.patients[1], None)
    return replace(options, confidence_level=None, patients=ids)


def one_sided_groups(groups: Any, predictions: int, references: int | None) -> Groups:
    """Row masks per label, from the forms of `parse_groups` or from those of one side alone.

    Args:
        groups: {label: mask}, {label: (mask, mask)}, labels (N, 14), a list of `labels_dict` or of names, or a pair of
            such labels.
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
        alone = (_first(groups), [])
    return parse_groups(alone, predictions, 0)


def _first(of_one_or_two: Any) -> Any:
    """The predictions' half of a pair, or what was given for them alone; only a tuple is a pair."""
    return of_one_or_two[0] if isinstance(of_one_or_two, tuple) and len(of_one_or_two) == 2 else of_one_or_two
