"""The films the report shows: what the caller hands over, and thumbnails of it as data URIs. Knows nothing of files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Films = Sequence[tuple[np.ndarray, str]]
THUMBNAIL = 224  # pixels on the longer side
MAX_FILMS = 24  # per contact sheet


@dataclass(frozen=True)
class ReportImages:
    """Films and arrays that the page shows; whatever is None or empty is left out.

    Films are (uint8 array, caption): (H, W) or (H, W, 3), any size. The first line of a caption is the description
    (prompt, file name), the following lines are short facts (quality, score, reason).

    Args:
        real: samples of the real set.
        kept: synthetic films that passed the quality filter.
        rejected: synthetic films that did not, captioned with the reason.
        best_aligned: synthetic films with the highest image-prompt cosine, best first.
        worst_aligned: those with the lowest, worst first.
        real_points: (N, 2) projection of the real features.
        synthetic_points: (M, 2) in the same projection.
        matched: cosines of each image with its own prompt.
        shuffled: cosines of the same images with prompts at random.
    """

    real: Films | None = None
    kept: Films | None = None
    rejected: Films | None = None
    best_aligned: Films | None = None
    worst_aligned: Films | None = None
    real_points: np.ndarray | None = None
    synthetic_points: np.ndarray | None = None
    matched: np.ndarray | None = None
    shuffled: np.ndarray | None = None


def contact_sheets(images: ReportImages) -> list[dict[str, Any]]:
    """Thumbnails in the order they are shown; empty groups are left out."""
    titles = {
        "real": ("Real images", "reference"),
        "kept": ("Synthetic images, kept", "synthetic"),
        "rejected": ("Synthetic images, rejected", "rejected"),
        "best_aligned": ("Highest alignment with the prompt", "synthetic"),
        "worst_aligned": ("Lowest alignment with the prompt", "synthetic"),
    }
    sheets = []
    for field, (title, kind) in titles.items():
        films: Films = getattr(images, field) or []
        shown = [_film(array, caption, field) for array, caption in films[:MAX_FILMS]]
        if shown:
            sheets.append({"id": field, "title": title, "kind": kind, "films": shown, "total": len(films)})
    return sheets


def _film(array: np.ndarray, caption: str, field: str) -> dict[str, Any]:
    first, *facts = str(caption).splitlines() or [""]
    return {"source": thumbnail(array, field), "caption": first, "facts": facts, "short": _shortened(first)}


def _shortened(text: str, limit: int = 90) -> str | None:
    return None if len(text) <= limit else text[: limit - 10].rstrip(" ,.;") + "…"


def thumbnail(array: np.ndarray, field: str = "film") -> str:
    """A data URI: JPEG, at most `THUMBNAIL` pixels on the longer side."""
    from PIL import Image

    film = np.asarray(array)
    film = film[..., 0] if film.ndim == 3 and film.shape[2] == 1 else film
    if film.dtype != np.uint8 or film.ndim not in (2, 3) or (film.ndim == 3 and film.shape[2] != 3) or 0 in film.shape:
        shape = f"{film.dtype} {film.shape}"
        raise ValueError(f"{field} films must be uint8 (H, W) or (H, W, 3), got {shape}; convert them to 8 bits first")
    picture = Image.fromarray(film)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
