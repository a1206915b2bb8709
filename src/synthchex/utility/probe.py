"""A linear probe: logistic regression of every label on frozen features, with an L2 penalty chosen on validation films.

Knows arrays. Labels that are not known of a film are left out of its loss. The loss of a label is the mean over the
films that know it plus penalty / 2 times the squared length of its weights, so that a penalty means the same at any
number of films; scikit-learn's C is 1 / (penalty * films).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synthchex.data.training import MultiHot

ITERATIONS, TOLERANCE = 1000, 1e-5


class Scale(NamedTuple):
    """Mean and standard deviation of the features of training films, (D,) each."""

    mean: np.ndarray
    deviation: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardised features, float64 (N, D)."""
        return (np.asarray(features, np.float64) - self.mean) / self.deviation


class Probe(NamedTuple):
    """Weights of standardised features with the intercept last, (D + 1, L), and how they were found.

    `penalties` are those of each label, (L,); `converged` whether every fit that was kept ended by itself.
    """

    scale: Scale
    weights: np.ndarray
    penalties: np.ndarray
    converged: bool

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Probabilities, float64 (N, L)."""
        return probabilities(self.scale(features), self.weights)


class Fit(NamedTuple):
    """Weights (D + 1, L) and whether the search ended by itself."""

    weights: np.ndarray
    converged: bool


def scale_of(features: np.ndarray) -> Scale:
    """Mean and standard deviation; a feature that never varies keeps deviation 1."""
    values = np.asarray(features, np.float64)
    deviation = values.std(0)
    return Scale(values.mean(0), np.where(deviation > 1e-8, deviation, 1.0))


def probabilities(standardised: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sigmoid of the linear scores, (N, L)."""
    from scipy.special import expit

    return np.asarray(expit(standardised @ weights[:-1] + weights[-1]))


def fit(
    features: np.ndarray,
    labels: MultiHot,
    penalty: float,
    *,
    start: np.ndarray | None = None,
    centre: np.ndarray | None = None,
) -> Fit:
    """Logistic regression of all labels at once.

    Args:
        features: standardised, float64 (N, D).
        labels: values and mask, (N, L).
        penalty: above 0; the intercept is not penalised.
        start: weights to begin from, (D + 1, L).
        centre: weights that the penalty pulls to, (D + 1, L); 0 by default. This is the mean of a Gaussian prior.

    Returns:
        A label that all films have alike has no solution: see `trainable`.
    """
    from scipy.optimize import minimize

    shape = (features.shape[1] + 1, labels.values.shape[1])
    towards = np.zeros(shape) if centre is None else centre
    values, share = labels.values.astype(np.float64), labels.mask / np.maximum(labels.mask.sum(0), 1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        scores = features @ weights[:-1] + weights[-1]
        error = (_sigmoid(scores) - values) * share
        pull = weights[:-1] - towards[:-1]
        gradient = np.concatenate([features.T @ error + penalty * pull, error.sum(0)[None]])
        total = ((np.logaddexp(0, scores) - values * scores) * share).sum() + penalty / 2 * np.square(pull).sum()
        return float(total), gradient.ravel()

    begin = np.zeros(shape) if start is None else start
    options = {"maxiter": ITERATIONS, "maxcor": 20, "gtol": TOLERANCE, "ftol": 1e-9, "maxfun": 2 * ITERATIONS}
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    return Fit(found.x.reshape(shape), bool(found.success))


def train(
    features: np.ndarray,
    labels: MultiHot,
    validation: tuple[np.ndarray, MultiHot],
    penalties: Sequence[float],
    *,
    before: tuple[tuple[np.ndarray, MultiHot], tuple[np.ndarray, MultiHot]] | None = None,
) -> Probe:
    """A probe whose penalty, of each label, has the lowest loss on validation films.

    Args:
        features: raw, (N, D); standardised by their own mean and deviation.
        labels: of them.
        validation: features and labels that choose the penalty. A label that they do not have both ways takes the
            penalty with the lowest mean loss over the labels that they do.
        penalties: the grid.
        before: training and validation films of a first probe, whose weights the penalty of the second pulls to; this
            is what pretraining is for a convex model.
    """
    scale = scale_of(features)
    centre = None
    if before is not None:
        (first, first_labels), (held, held_labels) = before
        centre = _search(scale(first), first_labels, (scale(held), held_labels), penalties, None).weights
    found = _search(scale(features), labels, (scale(validation[0]), validation[1]), penalties, centre)
    return found._replace(scale=scale)


def trainable(labels: MultiHot) -> np.ndarray:
    """Labels that some films have and some have not, bool (L,)."""
    return np.asarray(((labels.values == 1) & labels.mask).any(0) & ((labels.values == 0) & labels.mask).any(0))


def log_loss(predicted: np.ndarray, labels: MultiHot) -> np.ndarray:
    """Mean cross-entropy of each label over the films that know it, (L,); NaN where none does."""
    clipped = np.clip(predicted, 1e-12, 1 - 1e-12)
    losses = -np.where(labels.values == 1, np.log(clipped), np.log1p(-clipped)) * labels.mask
    count = labels.mask.sum(0)
    return np.asarray(np.divide(losses.sum(0), count, out=np.full(len(count), np.nan), where=count > 0))


def _search(
    features: np.ndarray,
    labels: MultiHot,
    validation: tuple[np.ndarray, MultiHot],
    penalties: Sequence[float],
    centre: np.ndarray | None,
) -> Probe:
    """Every penalty from the largest on, each from where the last one ended; of each label the best."""
    usable = trainable(labels)
    labels = MultiHot(labels.values, labels.mask & usable)  # else an intercept without end
    grid, losses = sorted(penalties, reverse=True), []
    fits: list[Fit] = []
    for penalty in grid:
        start = fits[-1].weights if fits else centre
        fits.append(fit(features, labels, penalty, start=start, centre=centre))
        losses.append(log_loss(probabilities(validation[0], fits[-1].weights), validation[1]))
    known = trainable(validation[1]) & usable
    table = np.array(losses)
    together = int(table[:, known].mean(1).argmin()) if known.any() else len(grid) // 2
    best = np.where(known, np.where(known, table, 0).argmin(0), together)
    weights = np.stack([fits[place].weights[:, column] for column, place in enumerate(best)], axis=1)
    done = all(fits[place].converged for place in set(best.tolist()))
    empty = Scale(np.empty(0), np.empty(0))
    return Probe(empty, weights, np.array(grid)[best], done)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(scores))
