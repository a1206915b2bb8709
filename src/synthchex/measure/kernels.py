"""What kernel distances share as `evaluate` modules: all rows, groups, an interval and a test from one pass.

A metric says how two sides are compared (`compare`); this says what is asked for and what it is called.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synthchex.maths import intervals, null
from synthchex.maths.kernel import Columns, Comparison, Estimate
from synthchex.measure import Groups, Measure, Options, patients_of, too_few, with_interval
from synthchex.measure.sides import Side


class KernelMeasure(Measure):
    """An `evaluate` metric that is a kernel distance; subclasses say `_info`, `options` and `compare`.

    `permutations` is among the options.
    """

    def compare(self, fake: Side, real: Side, columns: Columns | None, options: Options, **asked: Any) -> Comparison:
        """One pass over the kernel; `asked` are clusters, permutations and seed, for `kernel.compare`."""
        raise NotImplementedError

    def score(self, fake: Side, real: Side, options: Options) -> dict[str, Any]:
        """The distance with its standard error, with an interval and a p-value when asked."""
        found, few = self._pass(fake, real, None, options)
        return self._entries(found.whole, found.p_value, options) | self.beside(found) | {"warnings": few}

    def beside(self, found: Comparison) -> dict[str, Any]:
        """Entries of all rows that only this metric has."""
        return {}

    def all_scores(
        self, fake: Side, real: Side, groups: Groups, options: Options
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything from one pass; only a test of a group is a pass over its rows."""
        if not groups or options.own["permutations"]:
            return Measure.all_scores(self, fake, real, groups, options)
        counts = {label: (int(left.sum()), int(right.sum())) for label, (left, right) in groups.items()}
        enough = [label for label, pair in counts.items() if min(pair) >= self.fewest(options)]
        columns = [
            np.array([groups[label][side] for label in enough], bool).reshape(len(enough), -1).T for side in (1, 0)
        ]
        found, _ = self._pass(fake, real, (columns[0], columns[1]) if enough else None, options)
        entries = {
            label: self._entries(estimate, None, options)
            for label, estimate in zip(enough, found.selections, strict=True)
        }
        labels = {}
        for label, (left, right) in counts.items():
            n = {"n_predictions": left, "n_references": right}
            lacking = too_few(n, self.fewest(options))
            labels[label] = {**entries.get(label, {self.name: None}), **n, "warnings": [lacking] if lacking else []}
        return self._entries(found.whole, None, options) | self.beside(found) | {"warnings": []}, labels

    def refuse_statistics(self, fake: Side, real: Side) -> None:
        """A kernel distance needs every row.

        Raises:
            ValueError: a side is known by its moments only.
        """
        if fake.moments or real.moments:
            raise ValueError(
                f"{self.name}: expected images or features, got statistics; a kernel distance needs every row"
            )

    def _pass(self, fake: Side, real: Side, columns: Columns | None, options: Options) -> tuple[Comparison, list[str]]:
        """The comparison, and a sentence where there are too few clusters for the test."""
        self.refuse_statistics(fake, real)
        fake_ids, real_ids = patients_of(options, len(fake), len(real))
        fewest = min((len(np.unique(ids)) for ids in (fake_ids, real_ids) if ids is not None), default=len(fake))
        permutations, few = int(options.own["permutations"] or 0), []
        if permutations and fewest < null.FEWEST_CLUSTERS and (fake_ids is not None or real_ids is not None):
            few = [f"no p-value: expected at least {null.FEWEST_CLUSTERS} patients a side, got {fewest}"]
            permutations = 0
        asked = {"clusters": (real_ids, fake_ids), "permutations": permutations, "seed": options.seed}
        return self.compare(fake, real, columns, options, **asked), few

    def _entries(self, estimate: Estimate, p_value: float | None, options: Options) -> dict[str, Any]:
        result: dict[str, Any] = {self.name: estimate.value, f"{self.name}_standard_error": estimate.standard_error}
        if options.own["permutations"]:
            result[f"{self.name}_p_value"] = p_value
        if options.confidence_level:
            ends = intervals.normal(estimate.value, estimate.standard_error, confidence=options.confidence_level)
            result |= with_interval(self.name, ends)
        return result
