"""How films go bad, for the judge: a little, a lot, and pictures that are no chest films at all.

The test set is drawn from the same code with another seed, except the generator failures: those come from denoiser
checkpoints that the judge never saw.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

QUALITIES = ("High Quality", "Medium Quality", "Low Quality", "Not Relevant")
HIGH, MEDIUM, LOW, NOT_RELEVANT = range(4)


def worsen(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """One film brought to a quality: unchanged, mildly or severely degraded, or replaced by something else."""
    if quality == HIGH:
        return film
    if quality == NOT_RELEVANT:
        return nonsense(film, rng)
    ways = (_blur, _noise, _expose) if quality == MEDIUM else (_blur, _noise, _expose, _pixelate, _occlude, _scramble)
    return ways[rng.integers(len(ways))](film, quality, rng)


def nonsense(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Not a chest film: noise, a gradient, shapes, text, stripes, a close-up or a film on its side."""
    ways = (_static, _gradient, _figures, _page, _stripes, _closeup, _turned, _clouds)
    return ways[rng.integers(len(ways))](film, rng)


def _blur(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    radius = rng.uniform(0.7, 1.1) if quality == MEDIUM else rng.uniform(2.0, 5.0)
    return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(float(radius))))


def _noise(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    spread = rng.uniform(8, 16) if quality == MEDIUM else rng.uniform(35, 90)
    grain = rng.normal(0, spread, film.shape)
    return _bytes(film + grain)


def _expose(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    up = rng.random() < 0.5
    power = rng.uniform(1.5, 1.9) if quality == MEDIUM else rng.uniform(3.5, 7.0)
    return _bytes(255 * (film / 255.0) ** (1 / power if up else power))


def _pixelate(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(6, 15))
    return np.asarray(Image.fromarray(film).resize((size, size), Image.Resampling.BOX).resize(film.shape, 0))


def _occlude(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    spoiled = film.copy()
    wide, tall = rng.integers(30, 50, 2)
    left, top = rng.integers(0, 64 - wide + 1), rng.integers(0, 64 - tall + 1)
    spoiled[top : top + tall, left : left + wide] = rng.choice([0, 128, 255])
    return spoiled


def _scramble(film: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Squares of the film in the wrong order."""
    side = int(rng.choice([8, 16]))
    count = 64 // side
    tiles = film.reshape(count, side, count, side).transpose(0, 2, 1, 3).reshape(-1, side, side)
    mixed = tiles[rng.permutation(len(tiles))].reshape(count, count, side, side)
    return mixed.transpose(0, 2, 1, 3).reshape(64, 64)


def _static(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _bytes(rng.normal(rng.uniform(60, 190), rng.uniform(20, 90), (64, 64)))


def _gradient(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    slope = rng.normal(0, 90, 4)
    return _bytes(rng.uniform(20, 235) + slope[0] * x + slope[1] * y + slope[2] * x * y + slope[3] * np.hypot(x, y))


def _figures(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (64, 64), int(rng.integers(256)))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 8)):
        left, top = rng.integers(-10, 54, 2)
        box = (int(left), int(top), int(left + rng.integers(6, 45)), int(top + rng.integers(6, 45)))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=int(rng.integers(256)))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(float(rng.choice([0.0, 0.7, 1.5])))))


def _page(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    dark = rng.random() < 0.5
    picture = Image.new("L", (64, 64), 15 if dark else 240)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(float(rng.uniform(7, 14)))
    for top in range(0, 64, int(rng.integers(9, 16))):
        text = "".join(rng.choice(list("abcdefghijklmno prstuvwxyz"), 14))
        draw.text((int(rng.integers(0, 5)), top), text, fill=245 if dark else 10, font=font)
    return np.asarray(picture)


def _stripes(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    turn, pace = rng.uniform(0, np.pi), rng.uniform(4, 40)
    wave = np.sin(pace * (x * np.cos(turn) + y * np.sin(turn)) + rng.uniform(0, 6))
    return _bytes(128 + rng.uniform(40, 127) * (np.sign(wave) if rng.random() < 0.5 else wave))


def _closeup(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(8, 16))
    left, top = rng.integers(0, 64 - size, 2)
    return np.asarray(Image.fromarray(film[top : top + size, left : left + size]).resize((64, 64), 3))


def _turned(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A film on its side or on its head, or a negative."""
    way = int(rng.integers(4))
    return 255 - film if way == 3 else np.rot90(film, way + 1).copy()


def _clouds(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of several scales, like leaves, fur or skin."""
    total = np.zeros((64, 64))
    for size in (4, 8, 16, 32):
        coarse = Image.fromarray(rng.normal(0, 1, (size, size)).astype(np.float32))
        total += rng.uniform(0, 1) * np.asarray(coarse.resize((64, 64), 3))
    return _bytes(128 + 60 * total / total.std())


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
