"""From line integrals to film: X-ray exposure, scatter, quantum noise, and the display window."""

import numpy as np

from synthchex.phantom.anatomy import WATER, Body, airway, bones, build_body
from synthchex.phantom.devices import device_integral
from synthchex.phantom.findings import Chart
from synthchex.phantom.pathology import lung_integral
from synthchex.phantom.shapes import Dice, bump, chord, step

__all__ = ["render"]


def render(size: int, chart: Chart, draws: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Expose a block of phantoms.

    Args:
        size: side of the picture in pixels.
        chart: findings of N phantoms.
        draws: uniform numbers, (N, `shapes.DRAWS`).
        grain: standard normal numbers for the quantum noise, (N, size, size).

    Returns:
        Films as uint8, (N, size, size); bone is white.
    """
    dice = Dice(draws)
    body = build_body(size, chart, dice)
    integral = WATER * body.torso + bones(body, chart, dice) + airway(body) + _abdomen(body, dice)
    for lung in body.lungs:
        integral += lung_integral(body, lung, chart, dice)
    integral += device_integral(body, chart, dice)
    return _window(_expose(integral, grain, dice), body, dice)


def _abdomen(body: Body, dice: Dice) -> np.ndarray:
    """Liver under the right dome, the gas of stomach and bowel under the left one."""
    right, left = body.lungs
    liver = 0.10 * step((body.y - right.dome - 0.03) / 0.05) * step((0.25 - body.x) / 0.3)
    x, wide, tall = body.mid + dice(0.30, 0.52), dice(0.10, 0.22), dice(0.04, 0.09)
    stomach = dice(0, 0.55) * chord(((body.x - x) / wide) ** 2 + ((body.y - left.dome - 0.05 - tall) / tall) ** 2)
    bowel = np.zeros_like(body.x)
    for _ in range(3):
        here, low, size = dice(-0.5, 0.6), dice(0.70, 1.0), dice(0.07, 0.16)
        bowel += dice(-0.1, 0.22) * bump(np.sqrt((body.x - here) ** 2 + (1.5 * (body.y - low)) ** 2) / size)
    return liver - stomach - bowel * step((body.y - left.dome - 0.1) / 0.05)


def _expose(integral: np.ndarray, grain: np.ndarray, dice: Dice) -> np.ndarray:
    """Beer-Lambert with a veil of scatter and counting noise; returns the logarithm a detector shows."""
    light = np.exp(-np.maximum(integral, 0))
    veil = dice(0.3, 0.6) * np.mean(np.minimum(light, 0.3), axis=(1, 2), keepdims=True)
    light = light + 0.15 * veil
    photons = np.exp(dice(float(np.log(4e4)), float(np.log(8e5))))
    return -np.log(np.maximum(light + grain * np.sqrt(light / photons), 1e-4))


def _window(dense: np.ndarray, body: Body, dice: Dice) -> np.ndarray:
    """Stretch the chest over the grey scale with a soft shoulder, and leave open air black."""
    stride = max(dense.shape[1] // 16, 1)
    probe = dense[:, ::stride, ::stride].reshape(len(dense), -1)
    low, high = np.quantile(probe, [0.06, 0.96], axis=1).astype(np.float32)[:, :, None, None]
    tone = (dense - low) / (high - low) - 0.5 + dice(-0.07, 0.07)
    film = 0.5 + 0.5 * np.tanh(2.0 * dice(0.88, 1.10) * tone)
    film *= 0.03 + 0.97 * step((body.torso - 1.5) / 1.5)
    return np.clip(film * 255 + 0.5, 0, 255).astype(np.uint8)
