"""What is measured on pixels: likeness of pairs within the set and within labels, and radiomics. Reads few films.

MS-SSIM compares pairs; a few films of each label are enough, so only those are read, once, and kept in the store as
small grey images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import sources
from synthchex.models import store
from synthchex.scores import measures
from synthchex.scores.request import Request
from synthchex.scores.sets import Side

if TYPE_CHECKING:
    import torch

WIDTH = 192  # five scales of MS-SSIM need 161
PAIRS, LABEL_PAIRS = 100, 30


class Grey:
    """Films as small grey squares, uint8: an encoder as far as the store is concerned."""

    key = name = f"grey-{WIDTH}"

    def prepare(self, batch: Sequence[np.ndarray]) -> torch.Tensor:
        """(N, WIDTH^2) uint8, each film squeezed into the square by one antialiased resize."""
        import torch
        from PIL import Image

        small = [Image.fromarray(films.to_grey(film)).resize((WIDTH, WIDTH)) for film in batch]
        return torch.from_numpy(np.stack([np.asarray(image).ravel() for image in small]))

    def forward(self, inputs: torch.Tensor) -> np.ndarray:
        """The same."""
        return inputs.numpy()


def ms_ssim(fake: Side, real: Side, groups: measures.Groups, request: Request, kept: Path | None) -> dict[str, Any]:
    """MS-SSIM of random pairs of the synthetic set, overall and per label, beside that of the real set."""
    rng = np.random.default_rng(request.seed)
    merged = measures.empty(groups)
    drawn = [rng.permutation(len(side))[: 2 * PAIRS] for side in (fake, real)]
    whole = [_squares(side, rows, kept, request) for side, rows in zip((fake, real), drawn, strict=True)]
    options = {"seed": request.seed, "confidence_level": request.confidence_level}
    merged_overall = measures.run("ms_ssim", predictions=whole[0], references=whole[1], n_pairs=PAIRS, **options)
    measures.merge(merged, merged_overall)
    for label, masks in groups.items():
        rows = [rng.permutation(np.flatnonzero(mask))[: 2 * LABEL_PAIRS] for mask in masks]
        if len(rows[0]) > 1:
            squares = _squares(fake, rows[0], kept, request)
            found = measures.run("ms_ssim", predictions=squares, n_pairs=LABEL_PAIRS, **options)
            measures.merge(merged, {"labels": {label: found}})
    return merged


def frd(fake: Side, real: Side) -> dict[str, Any]:
    """Fréchet radiomics distance of all films; seconds of a core for each."""
    merged = measures.empty({})
    pictures = [[_pixels(side, row) for row in range(len(side))] for side in (fake, real)]
    measures.merge(merged, measures.run("frd", predictions=pictures[0], references=pictures[1]))
    return merged


def _squares(side: Side, rows: np.ndarray, kept: Path | None, request: Request) -> np.ndarray:
    """Grey squares of some films, uint8 (n, WIDTH, WIDTH)."""
    chosen = [int(side.encoded.kept[row]) for row in rows]
    part = sources.ImageSet(
        side.images.source,
        [side.images.ids[index] for index in chosen],
        lambda place: side.images.fetch(chosen[place]),
    )
    small = store.encode(part, [Grey()], kept, num_workers=request.num_workers, quiet=True)
    return small.features[0].reshape(-1, WIDTH, WIDTH)


def _pixels(side: Side, row: int) -> np.ndarray:
    return films.read(side.images.fetch(int(side.encoded.kept[row]))).pixels
