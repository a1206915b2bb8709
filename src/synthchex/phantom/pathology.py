"""What disease does to a lung: how much of each beam's air it takes, hides or sets free.

`lung_integral` is the change of the line integral that one lung causes against a body of water. Vessels fade where
water has taken the air, and are missing outside a collapsed lung.
"""

import numpy as np

from synthchex.phantom.anatomy import AERATED, WATER, Body, Lung
from synthchex.phantom.findings import Chart
from synthchex.phantom.shapes import Dice, bump, chord, grid, step

_ZONES = np.array([0.30, 0.52, 0.72], np.float32)


def lung_integral(body: Body, lung: Lung, chart: Chart, dice: Dice) -> np.ndarray:
    """Line integral of one lung with its vessels and findings, less the water it stands in for (mostly negative)."""
    side = (lung.sign + 1) // 2
    inside = np.minimum(lung.depth / 6, 1)
    edema = grid(chart.has("edema")) * (0.34 + 0.26 * grid(chart.level("edema")))
    root = _root(body, lung)
    water = _edema(body, root, edema, dice)
    for part in (_consolidation, _pneumonia, _opacity, _atelectasis, _effusion, _pleura):
        water = np.maximum(water, part(body, lung, chart, side, dice))
    escaped, line, squeeze = _pneumothorax(lung, chart, side, dice)
    kept = 1 - escaped
    tissue = AERATED * (1 + squeeze) * kept
    total = lung.depth * (tissue - WATER + (WATER - tissue) * water * np.maximum(kept, _fluid(water)))
    total += WATER * _vessels(root, edema, dice) * inside * (1 - np.minimum(1.1 * water, 0.9)) * kept
    return total + _nodule(body, lung, chart, side, dice) * kept + 0.20 * line * inside


def _fluid(water: np.ndarray) -> np.ndarray:
    """Free fluid stays visible where the lung has collapsed: it is the only water above 0.9."""
    return (water > 0.9).astype(np.float32)


def _root(body: Body, lung: Lung) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates around the hilum: outward, distance and angle."""
    out = (body.x - body.mid) * lung.sign - 0.15
    down = body.y + (0.08 if lung.sign > 0 else 0.03)
    return out, np.sqrt(out * out + down * down) + 1e-4, np.arctan2(down, out)


def _vessels(root: tuple[np.ndarray, np.ndarray, np.ndarray], edema: np.ndarray, dice: Dice) -> np.ndarray:
    """Thickness of the vessels that fan out of the hilum and thin towards the wall, cm of water."""
    out, radius, angle = root
    shade = np.zeros_like(radius)
    for branch in range(8):
        start = -1.4 + branch * 0.40 + dice(-0.08, 0.08)
        width = 0.030 * np.maximum(1 - radius / 0.85, 0.15) + 0.012
        shade += bump((angle - start - dice(-0.4, 0.4) * radius) * radius / width)
    hilum = bump((out - 0.01) / 0.11) * bump(radius / 0.24)
    return (1.5 * np.minimum(shade, 1.3) * np.maximum(1 - radius / 0.85, 0) + 2.6 * hilum) * (1 + 0.8 * edema)


def _edema(body: Body, root: tuple[np.ndarray, np.ndarray, np.ndarray], edema: np.ndarray, dice: Dice) -> np.ndarray:
    """Bat-wing haze around the hila with a coarse net over it."""
    if not edema.any():
        return np.zeros_like(root[1])
    net = np.sin(34 * body.x + 3 * np.sin(9 * body.y + dice(0, 6))) * np.sin(31 * body.y + 3 * np.sin(10 * body.x))
    return edema * (0.62 * bump(root[1] / 0.75) + 0.20 + 0.12 * net)


def _spot(lung: Lung, chart: Chart, name: str, dice: Dice, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre of a finding in the lung's own coordinates (across, down)."""
    zone = grid(_ZONES[chart.height(name)])
    return dice(-spread, spread), zone + dice(-0.03, 0.03)


def _consolidation(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """A dense, even block that a fissure cuts straight."""
    across, down = _spot(lung, chart, "consolidation", dice, 0.15)
    size, thick, slope = dice(0.75, 0.95), dice(0.10, 0.14), dice(-0.04, 0.04) * lung.across
    left, above = lung.across - across, lung.down - down - slope
    bowed = thick * (1 - 0.35 * (left / size) ** 2)
    block = step((size - np.abs(left)) / 0.30) * step((bowed - above) / 0.03) * step((bowed + above) / 0.06)
    return grid(chart.on_side("consolidation", side)) * 0.85 * block


def _pneumonia(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """Patches of different size that run together."""
    across, down = _spot(lung, chart, "pneumonia", dice, 0.10)
    patches = np.zeros_like(lung.across)
    for turn in range(5):
        shift, fall = 0.36 * np.cos(1.26 * turn + dice(-0.4, 0.4)), 0.085 * np.sin(1.26 * turn + dice(-0.4, 0.4))
        patches += bump((lung.across - across - shift) / 0.62) * bump((lung.down - down - fall) / dice(0.09, 0.14))
    return grid(chart.on_side("pneumonia", side)) * 0.75 * np.minimum(patches, 1)


def _opacity(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """A wide, faint veil without an edge."""
    across, down = _spot(lung, chart, "opacity", dice, 0.10)
    veil = bump((lung.across - across) / 1.25) * bump((lung.down - down) / 0.27)
    return grid(chart.on_side("opacity", side)) * dice(0.40, 0.50) * veil


def _atelectasis(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """Two bands above a lifted diaphragm."""
    gap, tilt = lung.top - body.y, dice(-0.05, 0.05) * lung.across
    thick = 0.022 + 0.5 * body.pixel
    bands = bump((gap - 0.05 + tilt) / thick) + bump((gap - 0.17 - tilt) / thick)
    haze = 0.35 * step((lung.dome - 0.10 - body.y) / -0.05)
    return grid(chart.on_side("atelectasis", side)) * np.minimum(0.85 * bands * (lung.across > -0.8) + haze, 0.88)


def _effusion(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """Fluid with a meniscus that climbs the lateral wall."""
    level = 0.84 - 0.145 * grid(chart.level("effusion")) + dice(-0.02, 0.02)
    climb = 0.13 * np.clip(lung.across + 0.2, 0, 1.2) ** 3 + 0.02 * np.clip(-lung.across, 0, 1)
    return grid(chart.on_side("effusion", side)) * 0.97 * step((lung.down - level + climb) / 0.025)


def _pleura(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """A thick, uneven rind along the lateral wall, from the apex to the mid zone."""
    thick = 0.30 + 0.08 * np.sin(9 * body.y + dice(0, 6))
    rind = step((lung.across - 1 + thick) / 0.10) * step((0.72 - lung.down) / 0.06)
    return grid(chart.on_side("pleura", side)) * 0.88 * rind


def _pneumothorax(lung: Lung, chart: Chart, side: int, dice: Dice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where air has left the lung (0 to 1), the pleural line, and how much denser the collapsed lung is."""
    present = grid(chart.on_side("pneumothorax", side))
    grade = grid(chart.level("pneumothorax"))
    strip = (0.34 + 0.26 * grade + dice(-0.05, 0.05)) * (1.45 - 0.75 * lung.down)
    edge = lung.across - 1 + strip + 0.10 * np.sin(5 * lung.down + dice(0, 6)) * strip
    return present * step(edge / 0.05), present * bump(edge / 0.16), present * (0.5 + 0.35 * grade)


def _nodule(body: Body, lung: Lung, chart: Chart, side: int, dice: Dice) -> np.ndarray:
    """A dense ball."""
    across, down = _spot(lung, chart, "nodule", dice, 0.30)
    radius = 0.070 + 0.032 * grid(chart.level("nodule"))
    right = (lung.across - across) * lung.half
    fall = (lung.down - down) * 1.44
    ball = chord((right * right + fall * fall) / (radius * radius))
    return grid(chart.on_side("nodule", side)) * np.minimum(7.0 * radius * ball, 0.11 * lung.depth)
