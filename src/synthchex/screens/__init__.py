"""Screens beside the judge: films that are dropped for what can be measured of them, each with a named reason.

A screen's limits are set by real films: at `false_drops`, the share of real films of new patients that it may drop.
Only `pixels` has fixed limits, and `text` where no real films are given. Features come from `models.store`, so every
film is decoded once and passes once through each network, before the judge, who need not look at what is dropped here.
Knows sets of films; drops nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthchex.data.sources import ImageSet
from synthchex.screens import limits
from synthchex.screens.limits import Limits
from synthchex.screens.means import NEEDS, REASONS, TAKE_REFERENCE, Means, Seen, check, see
from synthchex.screens.measured import SCREENS, Findings, agreement

__all__ = ["NEEDS", "REASONS", "Means", "Screened", "agreement", "check", "screen"]


@dataclass(frozen=True)
class Screened:
    """What was found of N films.

    `reasons` why each is dropped, None where it is not (or could not be read); `found` {reason: bool (N,)}; `values`
    {measure: (N,)}, NaN where not measured; `limits` by measure; `real_dropped` {reason: share of the reference that
    it would drop}; `remarks` sentences.
    """

    reasons: list[str | None]
    found: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    limits: Mapping[str, Limits]
    real_dropped: Mapping[str, float]
    real_films: int
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Limits, counts and shares for JSON."""
        return {
            "dropped": {reason: self.reasons.count(reason) for reason in self.found},
            "would_drop": {reason: int(hit.sum()) for reason, hit in self.found.items()},
            "real_dropped": dict(self.real_dropped),
            "real_films": self.real_films,
            "limits": limits.as_dict(self.limits),
            "remarks": list(self.remarks),
        }


def screen(films: ImageSet, asked: Sequence[str], means: Means) -> Screened:
    """Which films are dropped, and why.

    Args:
        films: the set; rows that cannot be read get no reason here.
        asked: screens of `NEEDS`.
        means: what they measure with.

    Raises:
        ValueError: see `check`; or no film of a side can be read.
    """
    check(asked, means)
    wanted = any("reference" in NEEDS[name] or name in TAKE_REFERENCE for name in asked)
    fake = see(films, asked, means)
    real = see(means.reference, asked, means) if wanted and means.reference is not None else None
    findings = Findings(fake, real)
    for name in NEEDS:
        if name in asked:
            SCREENS[name](findings, means)
    few = limits.few(len(real.kept), means.false_drops) if real else None
    reasons: list[str | None] = [None] * len(films)
    for reason in reversed([reason for reason in REASONS if reason in findings.found]):
        for row in fake.kept[findings.found[reason]]:
            reasons[row] = reason
    return Screened(
        reasons,
        {reason: _whole(films, fake, hit, False) for reason, hit in findings.found.items()},
        {name: _whole(films, fake, values, np.nan) for name, values in findings.values.items()},
        findings.limits,
        {reason: float(hit.mean()) for reason, hit in findings.real_found.items()},
        0 if real is None else len(real.kept),
        (few,) if few else (),
    )


def _whole(films: ImageSet, seen: Seen, values: np.ndarray, missing: Any) -> np.ndarray:
    """Values of readable films at their rows of the set."""
    out = np.full(len(films), missing)
    out[seen.kept] = values
    return out
