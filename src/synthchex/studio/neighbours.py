"""The real films that are nearest to a film, by features of an encoder; encoded once, kept in the feature store."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthchex.data import images
from synthchex.data.sources import ImageSet
from synthchex.maths.search import nearest
from synthchex.models import encoders, store
from synthchex.studio import thumbs
from synthchex.studio.safety import OPEN


class Near(NamedTuple):
    """A real film near another one: distance of features, and its PNG and id where the policy lets them be shown."""

    distance: float
    png: bytes | None
    name: str | None


class Neighbours:
    """A real set to look for neighbours in. Encoder and features are loaded when they are first asked for."""

    def __init__(
        self,
        real: ImageSet,
        *,
        policy: str,
        encoder: str,
        kept: Path | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self.real, self.policy, self.name, self.kept = real, policy, encoder, kept
        self.device, self.batch_size = device, batch_size
        self.lock = threading.Lock()
        self._loaded: tuple[encoders.Encoder, store.Encoded] | None = None

    @property
    def shown(self) -> bool:
        """Whether real films may be shown: only open ones, as in reports."""
        return self.policy == OPEN

    @property
    def ready(self) -> bool:
        """Whether features are there; else the next question takes as long as encoding all real films."""
        return self._loaded is not None

    def find(self, pixels: np.ndarray, count: int = 3) -> list[Near]:
        """The nearest real films of a film, uint8 (H, W) or (H, W, 3), nearest first; distances have no unit, less is
        nearer.
        """
        with self.lock:
            encoder, real = self._ready()
            query = encoder.encode([pixels])
        found = nearest(query, real.features[0], k=min(count, len(real.kept)))
        pairs = zip(found.distances[0], found.rows[0], strict=True)
        return [self._near(int(real.kept[row]), float(distance)) for distance, row in pairs]

    def _ready(self) -> tuple[encoders.Encoder, store.Encoded]:
        if self._loaded is None:
            encoder = encoders.load_encoder(self.name, device=self.device)
            real = store.encode(self.real, [encoder], self.kept, batch_size=self.batch_size, quiet=True)
            self._loaded = encoder, real
        return self._loaded

    def _near(self, row: int, distance: float) -> Near:
        if not self.shown:
            return Near(distance, None, None)
        return Near(distance, thumbs.large(images.read(self.real.fetch(row)).pixels, 512), self.real.ids[row])
