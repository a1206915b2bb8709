"""What the gate keeps of a film: a hash of its pixels, its proportions, a thumbnail; and hashes of windows of it.

A signature is made once per film, beside the features of an encoder, by `models.store`. From the thumbnails alone come
the perceptual hashes: the signs of the 64 lowest cosine components of a window of the film, ranks instead of grey
levels. A crop of a film is a window of it, so real films are hashed under many windows and copies as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from synthchex.data import images

SIDE = 64  # pixels of a thumbnail, each way
LOWEST = 8  # cosine components each way, the constant left out
DIGEST, PROPORTION = 16, 4  # bytes of a row before the thumbnail
WIDTH = DIGEST + PROPORTION + SIDE * SIDE
FLAT = 2  # grey levels that a padded border may span
WHOLE = (0.0, 0.0, 1.0, 1.0)
SCALES = (0.95, 0.9, 0.85, 0.8)  # sides of the windows that real films are hashed under, nine places each


class Signer:
    """Films to signatures; has what `models.store.encode` asks of an encoder."""

    key = "gate-signatures-1"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Signatures of uint8 films, uint8 (N, WIDTH)."""
        return np.stack([signature(film) for film in pixels])


def signature(pixels: np.ndarray) -> np.ndarray:
    """One row: hash of shape and grey pixels, height over width, thumbnail squashed to SIDE x SIDE."""
    grey = np.ascontiguousarray(images.to_grey(pixels))
    digest = hashlib.sha256(f"{grey.shape}".encode() + grey.tobytes()).digest()[:DIGEST]
    proportion = np.array([grey.shape[0] / grey.shape[1]], np.float32).tobytes()
    return np.frombuffer(digest + proportion + thumbnail(grey).tobytes(), np.uint8)


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """SIDE x SIDE uint8 of a grey film, antialiased."""
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def digests(rows: np.ndarray) -> list[bytes]:
    """Pixel hashes of signatures."""
    return [row[:DIGEST].tobytes() for row in rows]


def proportions(rows: np.ndarray) -> np.ndarray:
    """Height over width of signatures' films, float64 (N,)."""
    return np.ascontiguousarray(rows[:, DIGEST : DIGEST + PROPORTION]).view(np.float32)[:, 0].astype(float)


def thumbnails(rows: np.ndarray) -> np.ndarray:
    """Thumbnails of signatures, uint8 (N, SIDE, SIDE)."""
    return rows[:, DIGEST + PROPORTION :].reshape(-1, SIDE, SIDE)


def windows(rows: np.ndarray) -> np.ndarray:
    """Windows of real films that copies may show, float64 (N, V, 4): left, top, right, bottom in shares of the film.

    What is inside flat borders, the centre square, the whole film, and crops of `SCALES` at nine places each.
    """
    places = [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]
    crops = [(x * (1 - s), y * (1 - s), x * (1 - s) + s, y * (1 - s) + s) for s in SCALES for x, y in places]
    fixed = np.repeat(np.array([WHOLE, *crops])[None], len(rows), axis=0)
    tall = proportions(rows)
    across, down = np.minimum(1.0, tall), np.minimum(1.0, 1 / tall)
    square = np.stack([0.5 - across / 2, 0.5 - down / 2, 0.5 + across / 2, 0.5 + down / 2], axis=1)
    return np.concatenate([content(thumbnails(rows))[:, None], square[:, None], fixed], axis=1)


def content(thumbs: np.ndarray) -> np.ndarray:
    """The part of each thumbnail inside flat borders, as padding to a square leaves them; float64 (N, 4), see
    `windows`. A film that is flat altogether is whole.
    """
    boxes = np.empty((len(thumbs), 4))
    for axis, (low, high) in ((1, (1, 3)), (2, (0, 2))):
        flat = np.ptp(thumbs, axis=3 - axis) <= FLAT
        inside = np.where(flat.all(axis=1)[:, None], True, ~flat)
        boxes[:, low] = inside.argmax(axis=1) / SIDE
        boxes[:, high] = 1 - inside[:, ::-1].argmax(axis=1) / SIDE
    return boxes


def hashes(thumbs: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Perceptual hashes of windows of films.

    Args:
        thumbs: uint8 (N, SIDE, SIDE).
        boxes: windows, float (N, V, 4), see `windows`.

    Returns:
        uint64 (N, V). Each bit says whether a cosine component of the window is above the median of the 64. Equal
        films have distance 0, others about 32; any rising change of grey levels changes little, turning a film to its
        negative changes every bit.

    Source: the DCT hash of Zauner 2010 (phash.org), on ranks and on windows.
    """
    levels = ranks(thumbs)
    across = _cosines(boxes[:, :, 0], boxes[:, :, 2])
    down = _cosines(boxes[:, :, 1], boxes[:, :, 3])
    parts = np.einsum("nvky,nyx->nvkx", down, levels, optimize=True) @ across.transpose(0, 1, 3, 2)
    parts = parts.reshape(*parts.shape[:2], -1)
    bits = parts > np.median(parts, axis=2, keepdims=True)
    return np.packbits(bits, axis=2).view(np.uint64)[:, :, 0]


def ranks(thumbs: np.ndarray) -> np.ndarray:
    """Grey levels replaced by the share of pixels that are darker, float32 in [-0.5, 0.5]; ties share theirs."""
    flat = thumbs.reshape(len(thumbs), -1)
    out = np.empty(flat.shape, np.float32)
    for row, film in enumerate(flat):
        counts = np.bincount(film, minlength=256)
        out[row] = ((np.cumsum(counts) - counts / 2) / film.size - 0.5)[film]
    return out.reshape(thumbs.shape)


def _cosines(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Cosine components 1 to LOWEST of windows [low, high] of a side, sampled at its pixels: (N, V, LOWEST, SIDE).

    A pixel that the edge of a window cuts counts by its share inside.
    """
    edges = np.arange(SIDE + 1) / SIDE
    lower, upper = np.maximum(edges[:-1], low[..., None]), np.minimum(edges[1:], high[..., None])
    place = ((lower + upper) / 2 - low[..., None]) / (high - low)[..., None]
    waves = np.cos(np.pi * np.arange(1, LOWEST + 1)[:, None] * place[..., None, :])
    return (waves * (upper - lower).clip(0)[..., None, :]).astype(np.float32)
