"""The films and arrays a report shows: what the caller hands over, and pictures made of it. Knows nothing of files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from synthchex.report.blocks import Films, Group, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

Film = tuple[np.ndarray, str]
Role = Literal["reference", "synthetic", "rejected"]
THUMBNAIL = 224  # pixels on the longer side
MARK = 96  # the same, of a film on the map
MAX_FILMS = 24  # per sheet
MAX_RANKED = 3  # per label and rank


class Ranked(NamedTuple):
    """Synthetic films of one label, ordered by some measure; each list with the most telling film first."""

    label: str
    best: Sequence[Film]
    median: Sequence[Film]
    worst: Sequence[Film]


class Neighbours(NamedTuple):
    """One synthetic film and the real films nearest to it, nearest first; captions hold the distances."""

    synthetic: Film
    real: Sequence[Film]


@dataclass(frozen=True)
class ReportImages:
    """Films and arrays that the page shows; whatever is None or empty is left out.

    Films are (uint8 array, caption): (H, W) or (H, W, 3), any size. The first line of a caption is the description
    (prompt, file name), the following lines are short facts (quality, score, reason).

    Args:
        real: samples of the real set, where its policy lets them be shown.
        kept: synthetic films that passed the quality filter, or samples of the set where there was no filter.
        rejected: synthetic films that did not, captioned with the reason.
        best_aligned: synthetic films with the highest image-prompt cosine, best first.
        worst_aligned: those with the lowest, worst first.
        ranked: best, median and worst films, one entry per label; the first 3 of each list are shown.
        ranked_by: the measure behind `ranked` in words, such as "cosine of image and prompt (medsiglip)".
        neighbours: synthetic films beside their nearest real ones, most suspicious first.
        neighbours_by: the measure behind `neighbours` in words, such as "Euclidean distance in rad-dino features".
        withheld: a sentence for the reader why real films are not shown; stands where they would be.
        real_points: (N, 2) projection of the real features.
        synthetic_points: (M, 2) in the same projection.
        real_marks: films drawn on the map, {row of `real_points`: array}; `spread_rows` chooses rows.
        synthetic_marks: the same for `synthetic_points`.
        map_of: what the map shows in words, such as "rad-dino features, principal components of the real set".
        matched: cosines of each synthetic image with its own prompt.
        shuffled: cosines of the same images with prompts at random.
        matched_real: cosines of real images with their own reports.
        aligned_by: name of the image-text network.
    """

    real: Sequence[Film] | None = None
    kept: Sequence[Film] | None = None
    rejected: Sequence[Film] | None = None
    best_aligned: Sequence[Film] | None = None
    worst_aligned: Sequence[Film] | None = None
    ranked: Sequence[Ranked] = ()
    ranked_by: str = ""
    neighbours: Sequence[Neighbours] = ()
    neighbours_by: str = ""
    withheld: str = ""
    real_points: np.ndarray | None = None
    synthetic_points: np.ndarray | None = None
    real_marks: Mapping[int, np.ndarray] = field(default_factory=dict)
    synthetic_marks: Mapping[int, np.ndarray] = field(default_factory=dict)
    map_of: str = ""
    matched: np.ndarray | None = None
    shuffled: np.ndarray | None = None
    matched_real: np.ndarray | None = None
    aligned_by: str = ""


def spread_rows(points: np.ndarray, count: int) -> list[int]:
    """Rows of (N, 2) points that lie far from each other: the farthest from the middle, then each time the point
    farthest from those chosen. Fewer than `count` where there are fewer points that differ."""
    finite = np.isfinite(points).all(1)
    gaps = np.where(finite, np.linalg.norm(points - points[finite].mean(0), axis=1), 0.0) if finite.any() else finite
    chosen: list[int] = []
    while len(chosen) < count and gaps.max(initial=0.0) > 0:
        chosen.append(int(gaps.argmax()))
        apart = np.linalg.norm(points - points[chosen[-1]], axis=1)
        gaps = np.where(finite, np.minimum(gaps, apart) if len(chosen) > 1 else apart, 0.0)
    return chosen


def sheet(title: str, films: Sequence[Film], role: Role) -> Group:
    """The first films of a list as pictures under a title."""
    shown = [picture(film, role, title, i) for i, film in enumerate(films[:MAX_FILMS], 1)]
    return Group(title, shown, len(films))


def picture(film: Film, role: Role, of: str, place: int, letters: int = 90) -> Picture:
    """A film as it is shown; a caption of more than `letters` folds, and `of` names the group for those who hear it."""
    caption, *facts = str(film[1]).splitlines() or [""]
    short = "" if len(caption) <= letters else caption[: letters - 10].rstrip(" ,.;") + "…"
    return Picture(thumbnail(film[0], of), role, caption, short, facts, f"{of}, film {place}")


def ranked(found: Ranked) -> Films:
    """Best, median and worst films of a label, side by side."""
    groups = []
    for name, films in {"Best": found.best, "Median": found.median, "Worst": found.worst}.items():
        of = f"{found.label}, {name.lower()}"
        shown = [picture(film, "synthetic", of, i, 40) for i, film in enumerate(films[:MAX_RANKED], 1)]
        groups += [Group(name, shown, len(shown))] if shown else []
    return Films(groups, "row")


def neighbours(found: Sequence[Neighbours]) -> Films:
    """Each synthetic film beside its real neighbours."""
    groups = []
    for place, pair in enumerate(found, 1):
        title = f"Film {place}"
        shown = [picture(pair.synthetic, "synthetic", f"{title}, synthetic", 1, 40)]
        real = enumerate(pair.real[:MAX_RANKED], 1)
        shown += [picture(film, "reference", f"{title}, nearest real", i, 40) for i, film in real]
        groups.append(Group(title, shown, len(shown)))
    return Films(groups, "pairs")


def checked(film: np.ndarray, name: str) -> np.ndarray:
    """The film as uint8 (H, W) or (H, W, 3).

    Raises:
        ValueError: it is neither.
    """
    array = np.asarray(film)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    coloured = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (array.ndim == 2 or coloured) or 0 in array.shape:
        raise ValueError(
            f"films under {name!r} must be uint8 (H, W) or (H, W, 3), got {array.dtype} {array.shape}; "
            "convert them to 8 bits first"
        )
    return array


def shrunk(film: np.ndarray, size: int, name: str) -> Image:
    """At most `size` pixels on the longer side."""
    from PIL import Image

    picture = Image.fromarray(checked(film, name))
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def thumbnail(film: np.ndarray, name: str) -> str:
    """A data URI: WebP, at most `THUMBNAIL` pixels on the longer side."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 75, "method": 2}
    shrunk(film, THUMBNAIL, name).save(buffer, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def marks(films: Mapping[int, np.ndarray], name: str) -> dict[int, np.ndarray]:
    """Small films for the map, uint8, by row."""
    return {row: np.asarray(shrunk(film, MARK, name)) for row, film in films.items()}
