"""Whether one film is another, moved: thumbnails are laid over each other and their correlation is read.

Knows pairs of thumbnails and where to begin; knows neither hashes nor thresholds. What is compared is local contrast
between two scales, so neither brightness nor a smooth shading matters; what is sought is the affine map, six numbers,
under which the candidate lies best on the real film.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

FINE, COARSE = 0.7, 4.0  # pixels: structure between these two scales is compared
FLOOR = 5.0  # grey levels: contrast below it is noise
LEAST_OVERLAP = 0.5  # share of the candidate that must lie on the real film
STEPS = 6
DAMPING = 1e-2


class Laid(NamedTuple):
    """Candidates laid over real films: correlation of what overlaps, 0 to 1, and the maps, float32 (B, 2, 3)."""

    correlation: torch.Tensor
    maps: torch.Tensor


def contrast(thumbs: np.ndarray, side: int) -> torch.Tensor:
    """Local contrast of thumbnails at `side` pixels, float32 (N, 1, side, side), about -2 to 2."""
    import torch
    from torch.nn.functional import interpolate

    grey = torch.from_numpy(np.array(thumbs, np.float32))[:, None]
    if side != grey.shape[-1]:
        grey = interpolate(grey, (side, side), mode="area")
    band = _blurred(grey, FINE) - _blurred(grey, COARSE)
    return band / (_blurred(band.square(), 1.5 * COARSE).sqrt() + FLOOR)


def begin(boxes: np.ndarray, windows: np.ndarray) -> torch.Tensor:
    """Maps that lay boxes of candidates on windows of real films, float32 (B, 2, 3).

    Maps take places of the candidate to places of the real film, both from -1 to 1 across the film.

    Args:
        boxes: left, top, right, bottom in shares of the candidate, (B, 4).
        windows: the same of the real film.
    """
    import torch

    boxes, windows = 2 * np.asarray(boxes, np.float32) - 1, 2 * np.asarray(windows, np.float32) - 1
    scale = (windows[:, 2:] - windows[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    shift = windows[:, :2] - scale * boxes[:, :2]
    maps = np.zeros((len(boxes), 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 1, 1], maps[:, :, 2] = scale[:, 0], scale[:, 1], shift
    return torch.from_numpy(maps)


def lay(candidates: torch.Tensor, real: torch.Tensor, maps: torch.Tensor, *, steps: int = STEPS) -> Laid:
    """Improve maps by Gauss-Newton steps on the standardised difference; keep the best seen of each pair.

    Args:
        candidates: local contrast, (B, 1, S, S).
        real: of the films they are laid on, (B, 1, S, S).
        maps: where to begin, (B, 2, 3).
        steps: corrections.

    Returns:
        Best correlation, at least 0, and its map; 0 where less than `LEAST_OVERLAP` of a candidate ever lay on the
        film.

    Source: Lucas and Kanade 1981, with gain and offset removed as in Evangelidis and Psarakis 2008.
    """
    import torch

    slopes = torch.cat([real, *torch.gradient(real, dim=(3, 2))], dim=1)
    places = _places(candidates)
    best = Laid(torch.zeros(len(maps)), maps)
    for step in range(steps + 1):
        laid, inside = _sampled(slopes, maps)
        one, other, spread = _standardised(candidates[:, 0], laid[:, 0], inside)
        share = inside.mean(dim=(1, 2))
        found = torch.where(share >= LEAST_OVERLAP, (one * other).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)), 0.0)
        better = found > best.correlation
        best = Laid(torch.where(better, found, best.correlation), torch.where(better[:, None, None], maps, best.maps))
        if step < steps:
            side = real.shape[-1]
            slope = laid[:, 1:] * (side / 2) / spread[:, None, None, None] * inside[:, None]
            maps = maps + _correction(one - other, slope, places, inside)
    return best


def _correction(left: torch.Tensor, slope: torch.Tensor, places: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """One damped least-squares step of each map, (B, 2, 3)."""
    import torch

    count = len(left)
    # Columns: d/dx and d/dy, each times (u, v, 1).
    columns = (slope[:, :, None] * places[None, None]).reshape(count, 6, -1)
    weight = inside.reshape(count, 1, -1)
    columns = (columns - (columns * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1)) * weight
    square = columns @ columns.mT
    damped = square + torch.diag_embed(square.diagonal(dim1=1, dim2=2) * DAMPING + 1e-3)
    return torch.linalg.solve(damped, columns @ left.reshape(count, -1, 1)).reshape(count, 2, 3)


def _places(films: torch.Tensor) -> torch.Tensor:
    """u, v and 1 at every pixel, (3, S, S)."""
    import torch

    side = films.shape[-1]
    line = (torch.arange(side) + 0.5) * (2 / side) - 1
    v, u = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([u, v, torch.ones_like(u)])


def _sampled(films: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Films at the mapped places, (B, C, S, S), and which of these lie on the film, float (B, S, S)."""
    from torch.nn.functional import affine_grid, grid_sample

    grid = affine_grid(maps, list(films.shape), align_corners=False)
    inside = (grid.abs() <= 1 - 1 / films.shape[-1]).all(dim=-1).float()
    return grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False), inside


def _standardised(
    one: torch.Tensor, other: torch.Tensor, inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both with mean 0 and spread 1 over the overlap, 0 outside; and the spread of the second."""
    weight = inside.sum(dim=(1, 2)).clamp(min=1)

    def scaled(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (values * inside).sum(dim=(1, 2)) / weight
        centred = (values - mean[:, None, None]) * inside
        spread = (centred.square().sum(dim=(1, 2)) / weight).sqrt().clamp(min=1e-6)
        return centred / spread[:, None, None], spread

    (first, _), (second, spread) = scaled(one), scaled(other)
    return first, second, spread


def _blurred(films: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, by one product each way; what lies outside has no weight."""
    import torch

    places = torch.arange(films.shape[-1], dtype=torch.float32)
    weights = torch.exp(-(places[:, None] - places).square() / (2 * sigma**2))
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights @ films @ weights.T
