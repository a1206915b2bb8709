"""How well images match their prompts, from unit embeddings of both in one space.

A mean cosine alone says little: towers put all images in one corner and all texts in another, so unrelated pairs score
high too. Beside it stand the mean of the same images against *shuffled* prompts and the distance from it in standard
deviations, retrieval of the right prompt among all others, the win rate over negated prompts, and what real pairs get.

The shuffled null needs no shuffling: over all N! pairings the mean and variance of the mean cosine have closed forms
(Hoeffding 1951), so z has no random part. `shuffled_p` draws pairings for those who want a p-value without normality.

Not known here: images, texts, encoders. Cost: O(N D min(N, D)) for the null, N U D for retrieval (U distinct prompts).
Ten million pairs: cosines, win rate and the sums behind the null add up over blocks and processes, in one pass and
O(D^2) memory. Retrieval is N U D: at ten million distinct prompts rank against a random ten thousand of them, within
which R@k has a standard error below 0.005, and say so: it is easier than among all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synthchex.maths import arrays
from synthchex.maths.arrays import Features

BLOCK = 2048


class Parts(NamedTuple):
    """Cosines of images with parts of their reports: of each part, and the mean and the least of each image."""

    each: list[np.ndarray]
    mean: np.ndarray
    least: np.ndarray


class Null(NamedTuple):
    """Mean cosine under random pairing: expectation, standard deviation, and the observed mean in units of it."""

    mean: float
    deviation: float
    z: float


def unit(embeddings: Features, name: str) -> np.ndarray:
    """Rows scaled to length 1, float32 or float64.

    Raises:
        ValueError: not finite floats (N, D), or a row of zeros.
    """
    rows = arrays.to_numpy(arrays.check(embeddings, name))
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not lengths.all():
        raise ValueError(f"{name}: expected non-zero embeddings, got zeros in row {int(np.argmin(lengths))}")
    return rows / lengths[:, None].astype(rows.dtype)


def cosines(images: Features, texts: Features) -> np.ndarray:
    """Cosine of each image with its own prompt.

    Args:
        images: image embeddings, float, (N, D).
        texts: prompt embeddings, float, (N, D), row i for image i.

    Returns:
        (N,) float64, -1 to 1, higher is better.

    Raises:
        ValueError: counts or widths differ, a row of zeros, not finite floats.

    >>> import numpy as np
    >>> cosines(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])).round(4).tolist()
    [1.0, 0.7071]
    """
    pictures, prompts = _paired(images, texts)
    return np.einsum("ij,ij->i", pictures, prompts, dtype=np.float64)


def part_cosines(images: Features, parts: Features, held: Sequence[np.ndarray]) -> Parts:
    """Cosine of each image with each part of its report, for example its sentences.

    Args:
        images: image embeddings, float, (N, D).
        parts: embeddings of the different parts of all reports, float, (U, D).
        held: N arrays of row numbers of `parts`: what each report holds, in order, at least one each.

    Returns:
        Cosines -1 to 1, higher is better; `least` shows the one sentence that the image does not bear out.

    Raises:
        ValueError: widths or counts differ, a report without a part, a row of zeros, not finite floats.

    >>> import numpy as np
    >>> part_cosines(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), [np.array([0, 1])]).least.tolist()
    [0.0]
    """
    pictures, texts = unit(images, "images"), unit(parts, "parts")
    if len(held) != len(pictures) or pictures.shape[1] != texts.shape[1]:
        raise ValueError(
            f"expected the parts of {len(pictures)} reports of width {pictures.shape[1]}, got {len(held)} of width "
            f"{texts.shape[1]}; encode images and parts by one image-text model"
        )
    empty = [place for place, own in enumerate(held) if not len(own)]
    if empty:
        raise ValueError(f"held: expected at least 1 part of every report, got none of report {empty[0]}")
    each = [texts[own].astype(np.float64) @ picture for own, picture in zip(held, pictures, strict=True)]
    return Parts(each, np.array([own.mean() for own in each]), np.array([own.min() for own in each]))


def shuffled_null(images: Features, texts: Features) -> Null:
    """Exact mean and deviation of the mean cosine over all pairings of these images with these prompts.

    Args:
        images: image embeddings, float, (N, D), N at least 2.
        texts: prompt embeddings, float, (N, D).

    Returns:
        Null mean and deviation, and z of the observed mean (0 where all pairings give the same). Copies of a prompt
        are prompts: where few are distinct many pairings are right by chance, and the null mean is high.

    Raises:
        ValueError: as `cosines`, or N below 2.

    Source: Hoeffding 1951, A combinatorial central limit theorem, theorem 2.
    """
    pictures, prompts = (part.astype(np.float64) for part in _paired(images, texts))
    count = len(pictures)
    if count < 2:
        raise ValueError(f"expected at least 2 pairs to shuffle, got {count}; pass more images")
    observed = float(np.einsum("ij,ij->", pictures, prompts)) / count
    expected = float(pictures.mean(axis=0) @ prompts.mean(axis=0))
    left, right = pictures - pictures.mean(axis=0), prompts - prompts.mean(axis=0)
    # Sum of squares of the doubly centred N x N cosines, which are formed only where they are the smaller matrix.
    few = count < pictures.shape[1]
    squares = np.square(left @ right.T).sum() if few else np.einsum("ij,ij->", left.T @ left, right.T @ right)
    deviation = float(np.sqrt(squares / (count - 1))) / count
    z = (observed - expected) / deviation if deviation > 1e-12 else 0.0
    return Null(expected, deviation, z)


def shuffled_p(images: Features, texts: Features, *, shuffles: int = 999, seed: int = 0) -> float:
    """Share of random pairings, the observed one counted, whose mean cosine is at least the observed.

    Args:
        images: image embeddings, float, (N, D).
        texts: prompt embeddings, float, (N, D).
        shuffles: random pairings.
        seed: of their generator.

    Returns:
        p-value, 1 / (shuffles + 1) to 1; lower means that the right prompts matter.

    Raises:
        ValueError: as `cosines`, or shuffles below 1.
    """
    if shuffles < 1:
        raise ValueError(f"shuffles must be at least 1, got {shuffles}")
    pictures, prompts = _paired(images, texts)
    random = np.random.default_rng(seed)
    observed = np.einsum("ij,ij->", pictures, prompts, dtype=np.float64)
    drawn = [
        np.einsum("ij,ij->", pictures, prompts[random.permutation(len(prompts))], dtype=np.float64)
        for _ in range(shuffles)
    ]
    slack = 1e-9 * max(1.0, abs(float(observed)))  # a pairing that is the observed one may differ in the last digit
    return (1 + int((np.array(drawn) >= observed - slack).sum())) / (shuffles + 1)


def retrieval_ranks(
    images: Features, texts: Features, prompts: Sequence[str] | None = None, *, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the right prompt among all distinct prompts for each image, and of the best right image for each prompt.

    Args:
        images: image embeddings, float, (N, D).
        texts: prompt embeddings, float, (N, D).
        prompts: the texts; equal ones are one candidate, so finding any copy is a hit. None: equal embeddings are.
        block: images per tile.

    Returns:
        Ranks from 1, int: (N,) for image to text, (U,) for text to image in order of first appearance. Ties count
        against the right one, so constant embeddings score as badly as they deserve.

    Raises:
        ValueError: as `cosines`, or another number of prompts.
    """
    pictures, embedded = _paired(images, texts)
    first, which = _distinct(embedded, prompts)
    candidates = embedded[first]
    # Cosines that differ by rounding are ties: the right ones are needed before the products that the rest come from.
    own = np.einsum("ij,ij->i", pictures, candidates[which]) - 16 * np.finfo(pictures.dtype).eps
    best_own = np.full(len(first), -np.inf, own.dtype)
    np.maximum.at(best_own, which, own)
    to_text, to_image = np.ones(len(pictures), int), np.ones(len(first), int)
    for start in range(0, len(pictures), block):
        scores = pictures[start : start + block] @ candidates.T
        scores[np.arange(len(scores)), which[start : start + block]] = -np.inf  # the right ones never compete
        to_text[start : start + block] += (scores >= own[start : start + block, None]).sum(axis=1)
        to_image += (scores >= best_own).sum(axis=0)
    return to_text, to_image


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of ranks at most k; 0 to 1, higher is better."""
    return float((ranks <= k).mean())


def win_rate(images: Features, texts: Features, rivals: Features) -> float:
    """Share of images nearer to their prompt than to its rival (for example the negated prompt); a tie is one half.

    Args:
        images: image embeddings, float, (N, D).
        texts: prompt embeddings, float, (N, D).
        rivals: embeddings of the rival prompts, float, (N, D).

    Returns:
        0 to 1; 0.5 means that the encoder, or the image, does not tell them apart.

    Raises:
        ValueError: as `cosines`.
    """
    right, wrong = cosines(images, texts), cosines(images, rivals)
    return float((right > wrong).mean() + 0.5 * (right == wrong).mean())


def _paired(images: Features, texts: Features) -> tuple[np.ndarray, np.ndarray]:
    pictures, prompts = unit(images, "images"), unit(texts, "texts")
    if pictures.shape != prompts.shape:
        raise ValueError(
            f"expected one prompt embedding per image in one space, got shape {pictures.shape} for images and "
            f"{prompts.shape} for texts; pass as many prompts as images, encoded by one image-text model"
        )
    return pictures, prompts


def _distinct(embedded: np.ndarray, prompts: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """First row of each distinct prompt, in order of appearance, and which distinct prompt each row is."""
    if prompts is not None and len(prompts) != len(embedded):
        raise ValueError(f"expected {len(embedded)} prompts, one per image, got {len(prompts)}")
    keys = [row.tobytes() for row in embedded] if prompts is None else list(prompts)
    numbers: dict[object, int] = {}
    which = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    return np.unique(which, return_index=True)[1], which
