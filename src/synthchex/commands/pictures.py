"""Films and arrays for the report of an evaluation. Real films are shown only when their source is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import sources
from synthchex.scores import Request, Scored, Side
from synthchex.scores.groups import members

if TYPE_CHECKING:
    import pyarrow

    from synthchex.report import ReportImages

SHEET, BEST, PER_LABEL, NEIGHBOURS = 24, 6, 3, 6
MAP_POINTS, MARKS = 4000, 8


def pictures(scored: Scored, table: pyarrow.Table, rejected: sources.ImageSet | None, request: Request) -> ReportImages:
    """What the report shows of a scored set.

    Args:
        scored: results and both sides.
        table: `samples.table` of it.
        rejected: films with verdicts, where a judge dropped some.
        request: the request; its policy decides whether real films are shown.
    """
    from synthchex.report import ReportImages

    rng = np.random.default_rng(request.seed)
    real, synthetic, encoder = scored.real, scored.synthetic, request.encoders[0]
    order = np.argsort(scored.matched) if scored.matched is not None else np.array([], int)
    shown = request.source_policy == "open"
    parts = [np.sort(rng.permutation(len(side))[:MAP_POINTS]) for side in (real, synthetic)]
    points = principal_plane(real.features[encoder], synthetic.features[encoder], *parts)
    return ReportImages(
        real=sheet(real, rng.permutation(len(real))[:SHEET]) if shown else None,
        kept=sheet(synthetic, rng.permutation(len(synthetic))[:SHEET]),
        rejected=None if rejected is None else rejects(rejected),
        best_aligned=sheet(synthetic, order[::-1][:BEST], scored.matched),
        worst_aligned=sheet(synthetic, order[:BEST], scored.matched),
        **ranked(scored, table, request),
        **(neighbours(scored, table, encoder) if shown else {"withheld": withheld(request)}),
        real_points=points[0],
        synthetic_points=points[1],
        real_marks=marked(real, parts[0], points[0]) if shown else {},
        synthetic_marks=marked(synthetic, parts[1], points[1]),
        map_of=f"{encoder} features on the two principal axes of the real set",
        matched=scored.matched,
        shuffled=scored.shuffled,
        matched_real=cosines(real),
        aligned_by=request.image_text or "",
    )


def sheet(side: Side, rows: np.ndarray, cosine: np.ndarray | None = None) -> list[tuple[np.ndarray, str]]:
    """Films of some rows with their captions."""
    return [film(side, row, "" if cosine is None else f"cosine {cosine[row]:.2f}") for row in map(int, rows)]


def film(side: Side, row: int, fact: str = "") -> tuple[np.ndarray, str]:
    """One film, captioned with its prompt or its id, and a fact below."""
    index = int(side.encoded.kept[row])
    caption = side.prompts[row] if side.prompts is not None else str(side.images.ids[index])
    return films.read(side.images.fetch(index)).pixels, caption + (f"\n{fact}" if fact else "")


def rejects(judged: sources.ImageSet) -> list[tuple[np.ndarray, str]]:
    """Films that the judge dropped, with prompt and reason."""
    reasons = judged.provenance.get("drop_reason", [])
    found = []
    for index in [i for i, reason in enumerate(reasons) if reason and not reason.startswith("unreadable")][:SHEET]:
        row = judged.row(index)
        found.append((films.read(judged.fetch(index)).pixels, f"{row['prompt']}\n{row['quality']}\n{reasons[index]}"))
    return found


def ranked(scored: Scored, table: pyarrow.Table, request: Request) -> dict[str, Any]:
    """Best, median and worst synthetic films of each label, by alignment where there is one, else by realism."""
    from synthchex.report.films import Ranked

    side = scored.synthetic
    key, words = ("alignment", f"cosine of image and prompt ({request.image_text})")
    if scored.matched is None:
        key, words = "realism", f"realism in {request.encoders[0]} features"
    values = np.array(table.column(key).to_pylist()[len(scored.real) :], float)
    if side.labels is None or np.isnan(values).all():
        return {}
    found = []
    for label, one in members(side.labels, request.uncertain).items():
        rows = np.flatnonzero(one.present & ~np.isnan(values))
        rows = rows[np.argsort(-values[rows], kind="stable")]
        if len(rows) >= 3 * PER_LABEL:
            middle = len(rows) // 2 - PER_LABEL // 2
            picks = (rows[:PER_LABEL], rows[middle : middle + PER_LABEL], rows[::-1][:PER_LABEL])
            found.append(Ranked(label, *([film(side, int(r), f"{values[r]:.2f}") for r in pick] for pick in picks)))
    return {"ranked": found, "ranked_by": words}


def neighbours(scored: Scored, table: pyarrow.Table, encoder: str) -> dict[str, Any]:
    """The synthetic films that lie nearest to a real one, beside it."""
    from synthchex.report.films import Neighbours

    rows = table.slice(len(scored.real)).to_pydict()
    distance = np.array(rows["nearest_distance"], float)
    place = {str(scored.real.images.ids[index]): row for row, index in enumerate(scored.real.encoded.kept)}
    found = []
    for row in map(int, np.argsort(distance)[:NEIGHBOURS]):  # NaN sorts last
        if np.isfinite(distance[row]):
            other = film(scored.real, place[rows["nearest"][row]], f"distance {distance[row]:.3g}")
            found.append(Neighbours(film(scored.synthetic, row), [other]))
    return {"neighbours": found, "neighbours_by": f"Euclidean distance in {encoder} features"}


def withheld(request: Request) -> str:
    """Why no real film is shown."""
    return (
        f"Real films are not shown: their source policy is {request.source_policy}. "
        "Pass --source-policy open where the real set may be shown to everyone who reads this report."
    )


def principal_plane(
    real: np.ndarray, synthetic: np.ndarray, real_rows: np.ndarray, synthetic_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of both sets on the two main axes of the real ones, (n, 2) each."""
    sample = np.asarray(real[real_rows], np.float64)
    centre = sample.mean(0)
    axes = np.linalg.eigh(np.cov(sample - centre, rowvar=False))[1][:, :-3:-1]
    return (sample - centre) @ axes, (synthetic[synthetic_rows] - centre) @ axes


def marked(side: Side, rows: np.ndarray, points: np.ndarray) -> dict[int, np.ndarray]:
    """Films to draw on the map: {place among the points: pixels}."""
    from synthchex.report.films import spread_rows

    return {place: film(side, int(rows[place]))[0] for place in spread_rows(points, MARKS)}


def cosines(side: Side) -> np.ndarray | None:
    """Cosines of real films with their own reports, where there are any."""
    if side.vectors is None or side.texts is None:
        return None
    return np.asarray((side.vectors * side.texts).sum(1))
