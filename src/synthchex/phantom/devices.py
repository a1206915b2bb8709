"""Support devices: what metal and plastic add to the line integral. Drawn thick enough to survive 64 pixels."""

import numpy as np

from synthchex.phantom.anatomy import Body
from synthchex.phantom.findings import Chart
from synthchex.phantom.shapes import Dice, bump, grid, step


def device_integral(body: Body, chart: Chart, dice: Dice) -> np.ndarray:
    """Line integral of the devices of a block of phantoms."""
    total = np.zeros_like(body.x)
    for kind, draw in enumerate((_tube, _catheter, _pacemaker, _leads, _wires)):
        total += grid(chart.has_device(kind)) * draw(body, dice)
    return total


def _line(distance: np.ndarray, body: Body) -> np.ndarray:
    """A wire of about one pixel and a half at a signed distance."""
    return bump(distance / (0.022 + 0.8 * body.pixel))


def _tube(body: Body, dice: Dice) -> np.ndarray:
    """Endotracheal tube: two walls and a dense stripe down the trachea, past the vocal cords."""
    from_mid, tip = body.x - body.mid - 0.01, dice(-0.40, -0.26)
    return (1.0 * _line(from_mid, body) + 0.25 * bump(from_mid / 0.07)) * step((tip - body.y) / 0.03)


def _catheter(body: Body, dice: Dice) -> np.ndarray:
    """Central line: in under one clavicle, then down to the right atrium."""
    sign = np.where(dice(0, 1) < 0.5, -1, 1).astype(np.float32)
    out, end = (body.x - body.mid) * sign, dice(-0.08, 0.14)
    entry = _line(body.y + 0.62 - 0.45 * np.clip(out - 0.14, 0, 0.4) ** 1.5, body) * ((out > 0.12) & (out < 0.66))
    target = sign * 0.13 + (-0.13 - sign * 0.13) * np.clip((body.y + 0.62) / 0.3, 0, 1)
    return 0.9 * np.maximum(entry, _line(body.x - body.mid - target, body) * ((body.y > -0.64) & (body.y < end)))


def _pacemaker(body: Body, dice: Dice) -> np.ndarray:
    """A can below one clavicle and a lead into the right ventricle."""
    sign = np.where(dice(0, 1) < 0.25, -1, 1).astype(np.float32)
    out, x, y = (body.x - body.mid) * sign, dice(0.48, 0.58), dice(-0.50, -0.40)
    can = step((0.125 - np.abs(out - x)) / 0.03) * step((0.10 - np.abs(body.y - y)) / 0.03)
    along = np.clip((body.y - y) / 0.75, 0, 1)
    entry = _line(body.y - y + 0.10 - 0.3 * (out - 0.05) * (x - out), body) * ((out > 0.04) & (out < x))
    bend = 0.05 * sign - 0.20 * np.sin(np.pi * np.minimum(along * 1.5, 1))
    course = bend + 0.34 * np.maximum(along - 0.5, 0)
    lead = _line((body.x - body.mid - course) * 0.85, body) * ((body.y > y - 0.1) & (body.y < y + 0.72))
    return np.maximum(1.5 * can, 0.9 * np.maximum(entry, lead))


def _leads(body: Body, dice: Dice) -> np.ndarray:
    """Three or four ECG electrodes and the wires that leave them towards the neck or the flank."""
    total = np.zeros_like(body.x)
    for x, y, always in ((-0.5, -0.36, 1), (0.5, -0.36, 1), (-0.48, 0.30, 1), (0.52, 0.34, 0)):
        here_x, here_y = x + dice(-0.12, 0.12), y + dice(-0.10, 0.10)
        shown = np.maximum(always, dice(0, 1) > 0.5)
        right, up = body.x - here_x, here_y - body.y
        pad = step((0.055 - np.sqrt(right * right + up * up)) / 0.025)
        course = np.sign(x) * dice(-0.25, 0.30) * np.sin(dice(1.2, 3.2) * up)
        total = np.maximum(total, shown * np.maximum(1.1 * pad, 0.7 * _line(right - course, body) * (up > 0)))
    return total


def _wires(body: Body, dice: Dice) -> np.ndarray:
    """Five steel loops down the sternum."""
    right, shift = body.x - body.mid, dice(-0.03, 0.03)
    order = (body.y + 0.42 + shift) / 0.17
    which = np.clip(np.round(order), 0, 4)
    ring = np.sqrt((right / 0.075) ** 2 + ((order - which) * 0.17 / 0.05) ** 2)
    return 1.3 * bump((ring - 0.75) / 0.6)
