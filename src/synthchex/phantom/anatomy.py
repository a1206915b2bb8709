"""The healthy body of a phantom: its coordinates, its lungs, heart and mediastinum, and the bones over them.

Image coordinates run from -1 to 1, x to the right and y down; the patient's right is on the left. Lengths along the
beam are in centimetres, so that every organ adds `attenuation x thickness` to the line integral (Beer-Lambert).
"""

from dataclasses import dataclass

import numpy as np

from synthchex.phantom.findings import Chart
from synthchex.phantom.shapes import Dice, bump, chord, grid, step

WATER = np.float32(0.17)
AERATED = np.float32(0.045)
APEX, BASE = -0.82, 0.62


@dataclass
class Lung:
    """One lung in its own coordinates.

    Attributes:
        sign: -1 for the right lung (left in the picture), 1 for the left lung.
        across: -1 at the medial wall, 1 at the lateral wall.
        down: 0 at the apex, 1 at the costophrenic angle.
        depth: thickness of lung along the beam, cm, after heart and mediastinum took their share.
        top: y of the highest point of the diaphragm.
        dome: y of the diaphragm above every x.
        half: half of the lung's width.
    """

    sign: int
    across: np.ndarray
    down: np.ndarray
    depth: np.ndarray
    top: np.ndarray
    dome: np.ndarray
    half: np.ndarray


@dataclass
class Body:
    """Where everything lies: coordinates after positioning, the midline, and the organs' thickness along the beam."""

    x: np.ndarray
    y: np.ndarray
    pixel: float
    mid: np.ndarray
    wall: np.ndarray
    torso: np.ndarray
    lungs: tuple[Lung, Lung]


def position(size: int, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel after the patient moved, turned and was zoomed."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    angle, zoom = dice(-0.06, 0.06), dice(0.93, 1.07)
    cos, sin = np.cos(angle), np.sin(angle)
    return (cos * x - sin * y) * zoom + dice(-0.05, 0.05), (sin * x + cos * y) * zoom + dice(-0.05, 0.05)


def build_body(size: int, chart: Chart, dice: Dice) -> Body:
    """Lay out the torso, the heart and the two lungs."""
    x, y = position(size, dice)
    mid, width, breath = dice(-0.04, 0.04), dice(0.76, 0.85), dice(-0.06, 0.04) - 0.14 * grid(chart.shallow)
    torso = _torso(x, y, width, dice)
    centre = np.maximum(_heart(x, y, mid, breath, chart, dice), _mediastinum(x, y, mid, chart, dice))
    fall = np.clip((y - APEX) / (BASE - APEX + breath), 0, 1)
    rise = 1 - fall
    wall = 0.30 + (width - 0.30) * (1 - rise**3.2) ** 0.55
    right, left = (_lung(x, y, mid, wall, fall, breath, centre, chart, side, dice) for side in (0, 1))
    return Body(x, y, 2.0 / size, mid, wall, torso, (right, left))


def bones(body: Body, chart: Chart, dice: Dice) -> np.ndarray:
    """Line integral of ribs, clavicles, shoulders and spine."""
    from_mid = body.x - body.mid
    out = np.abs(from_mid)
    total = _ribs(body, from_mid, out, chart, dice)
    collar = -0.66 + dice(-0.03, 0.03) - 0.20 * out + 0.05 * np.sin(5.5 * out)
    shaft = (body.y - collar) / (0.034 + 0.25 * body.pixel)
    total += (0.24 * bump(shaft) + 0.12 * bump((np.abs(shaft) - 0.8) / 0.4)) * ((out > 0.07) & (out < 0.86))
    shoulder = np.sqrt(((out - 1.0) / 0.24) ** 2 + ((body.y + 0.60) / 0.26) ** 2)
    blade = (out - 0.80 + 0.14 * (body.y + 0.3)) / 0.07
    total += 0.40 * bump(shoulder) + 0.16 * bump(blade) * step((0.12 - body.y) / 0.1) * step((body.y + 0.6) / 0.1)
    vertebra = 0.75 + 0.25 * np.cos(2 * np.pi * (body.y + dice(0, 0.15)) / 0.15)
    return total + 0.32 * chord((from_mid / 0.095) ** 2) * vertebra


def airway(body: Body) -> np.ndarray:
    """Line integral that the air of the trachea and the main bronchi takes away."""
    from_mid = body.x - body.mid - 0.01
    trachea = chord((from_mid / 0.052) ** 2) * step((-0.24 - body.y) / 0.04)
    fork = bump((np.abs(from_mid) - 0.9 * (body.y + 0.24)) / 0.05) * step((body.y + 0.26) / 0.03) * (body.y < -0.08)
    return -0.42 * trachea - 0.16 * fork


def _torso(x: np.ndarray, y: np.ndarray, width: np.ndarray, dice: Dice) -> np.ndarray:
    """Thickness of the soft body: trunk, shoulders, neck, and breasts in half of the phantoms."""
    depth, female = dice(9.0, 12.0), dice(0, 1) < 0.5
    shoulders = 0.30 * step((-0.42 - y) / 0.2) - 0.85 * step((-0.90 - y) / 0.10)
    half = np.maximum(width + 0.12 + shoulders + 0.05 * np.maximum(y, 0), 0.05)
    trunk = 2 * depth * chord(np.abs(x / half) ** 2.2) ** 0.9 * (1 - 0.35 * step((-0.62 - y) / 0.25))
    weight, low = female * dice(0.6, 2.0), dice(0.24, 0.36)
    breasts = sum(chord(((x - s * 0.46) / 0.33) ** 2 + ((y - low) / 0.28) ** 2) for s in (-1, 1))
    return trunk + weight * breasts


def _heart(x: np.ndarray, y: np.ndarray, mid: np.ndarray, breath: np.ndarray, chart: Chart, dice: Dice) -> np.ndarray:
    """Thickness of the heart: a rounded triangle in polar form whose apex points down and to the patient's left."""
    size = dice(0.275, 0.315) * (1 + grid(chart.has("heart")) * (0.24 + 0.16 * grid(chart.level("heart"))))
    right, down = x - mid - dice(0.05, 0.09) - 0.20 * (size - 0.295), y - 0.16 - 0.7 * breath
    angle = np.arctan2(down, right) - dice(0.42, 0.62)
    reach = size * (1 + 0.27 * np.cos(angle) + 0.11 * np.cos(2 * angle) - 0.04 * np.cos(3 * angle))
    return 12.5 * chord((right * right + down * down) / (reach * reach)) ** 0.8


def _mediastinum(x: np.ndarray, y: np.ndarray, mid: np.ndarray, chart: Chart, dice: Dice) -> np.ndarray:
    """Thickness of the great vessels: a band with the aortic knob and the pulmonary trunk on its left border."""
    wide = 1 + grid(chart.has("mediastinum")) * dice(0.75, 1.15) * step((0.25 - y) / 0.35)
    left = (dice(0.085, 0.11) + 0.07 * bump((y + 0.38) / 0.15) + 0.045 * bump((y + 0.10) / 0.22)) * wide
    right = dice(0.09, 0.115) * wide
    across = (x - mid - 0.5 * (left - right)) / (0.5 * (left + right))
    return 11.0 * chord(across**4) * step((y + 0.86) / 0.1)


def _lung(
    x: np.ndarray,
    y: np.ndarray,
    mid: np.ndarray,
    wall: np.ndarray,
    fall: np.ndarray,
    breath: np.ndarray,
    centre: np.ndarray,
    chart: Chart,
    side: int,
    dice: Dice,
) -> Lung:
    """One lung between the mediastinum, the chest wall and the diaphragm."""
    sign = (-1, 1)[side]
    out = (x - mid) * sign
    inner = 0.25 - 0.18 * (1 - (1 - fall) ** 5)
    half = np.maximum(wall - inner, 1e-3) / 2
    across = (out - (wall + inner) / 2) / half
    lifted = 0.12 * grid(chart.on_side("atelectasis", side))
    top = 0.37 - 0.03 * (sign < 0) + breath - lifted + dice(-0.02, 0.02)
    dome = top + 0.26 * ((out - 0.40) / 0.42) ** 2
    depth = 15.5 * chord(np.abs(across) ** 2.6) ** 0.8 * np.sqrt(np.minimum(2.2 * fall, 1))
    above = step((dome - y) / 0.025)
    behind = 0.12 * (1 - above) * step((dome + 0.10 - y) / 0.12)
    depth = np.maximum(depth * (above + behind) - centre * above, 0)
    return Lung(sign, across, fall, depth, top, dome, half)


def _ribs(body: Body, from_mid: np.ndarray, out: np.ndarray, chart: Chart, dice: Dice) -> np.ndarray:
    """Posterior and anterior ribs as one periodic pattern on a bent coordinate, and the displaced fracture."""
    reach = out / 0.82
    inside = (out > 0.07) * step((body.wall + 0.03 - out) / 0.03)
    order = (body.y + 0.80 + 0.24 * reach - 0.50 * reach**3) / dice(0.132, 0.142)
    which = np.clip(np.round(order), 0, 9)
    strength = dice(0.8, 1.2) * inside
    posterior = bump((order - which) / 0.34)
    front = (body.y + 0.42 - 0.55 * reach + 0.15 * reach**2) / 0.14
    anterior = bump((front - np.clip(np.round(front), 1, 6)) / 0.30) * (reach > 0.38)
    rim = bump((out - body.wall - 0.02) / 0.05) * step((0.55 - body.y) / 0.1) * step((body.y + 0.75) / 0.1)
    broken, place = np.floor(dice(3, 6.99)), dice(0.52, 0.66)
    hurt = grid(chart.on_side("fracture", 0)) * (from_mid < 0) + grid(chart.on_side("fracture", 1)) * (from_mid > 0)
    hurt *= np.abs(order - broken) < 1.2
    gone = hurt * (np.abs(order - broken) < 0.5) * (reach > place)
    inner_end = bump((order - broken) / 0.40) * step((reach - place + 0.30) / 0.05) * (reach < place - 0.02)
    outer_end = bump((order - broken - 0.60) / 0.40) * step((place + 0.32 - reach) / 0.05) * (reach > place + 0.02)
    pattern = strength * (0.20 * posterior * (1 - gone) + 0.06 * anterior) + 0.18 * rim
    return pattern + 0.75 * hurt * (inner_end + outer_end)
