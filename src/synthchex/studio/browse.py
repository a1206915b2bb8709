"""Pages of a dataset: which films stand on one, what is known of each, ratings by a person. Knows no page's layout."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthchex.data import images, records
from synthchex.studio import thumbs
from synthchex.studio.index import Filter, Index
from synthchex.studio.neighbours import Near, Neighbours
from synthchex.studio.ratings import TAKEN_BACK, Ratings
from synthchex.studio.safety import OPEN
from synthchex.studio.thumbs import Thumb, Thumbs

PAGE_ROWS = 24
REMEMBERED = 16  # orders of filters that were asked for last


@dataclass(frozen=True)
class Place:
    """Where a visitor is: a filter, and the number of a film among those that it lets through.

    `turn` counts what was drawn: keys wait for it, so that none overtakes another.
    """

    asked: Filter = field(default_factory=Filter)
    number: int = 0
    turn: int = 0

    @property
    def page(self) -> int:
        """The page that the film stands on, from 0."""
        return self.number // PAGE_ROWS


class Cell(NamedTuple):
    """One film on a page. `number` counts within the filter, from 0; `verdict` is the judge's, `rated` the person's."""

    row: int
    number: int
    name: str
    thumb: Thumb
    verdict: str | None
    reason: str | None
    rated: str | None
    score: float | None


class Page(NamedTuple):
    """Films of a page, how many the filter lets through, and which page this is, from 0, of how many."""

    cells: list[Cell]
    found: int
    number: int
    pages: int


class Shown(NamedTuple):
    """One film with all that is known of it; `png` None where it cannot be read, for `why`."""

    name: str
    png: bytes | None
    why: str
    prompt: str | None
    labels: dict[str, int | None]
    verdict: str | None
    reason: str | None
    rated: str | None
    facts: dict[str, float]
    made: dict[str, str]


class Browser:
    """A dataset, its thumbnails, and the ratings of the person who looks at it."""

    def __init__(
        self,
        index: Index,
        ratings: Ratings | None,
        *,
        policy: str,
        cache: Path | None = None,
        near: Neighbours | None = None,
    ) -> None:
        self.index, self.ratings, self.near = index, ratings, near
        self.thumbs = Thumbs(index.films, cache if policy == OPEN else None)
        self._orders: OrderedDict[Filter, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def order(self, asked: Filter) -> np.ndarray:
        """Row numbers that a filter lets through, in its order."""
        with self._lock:
            if asked not in self._orders:
                self._orders[asked] = self.index.rows(asked)
                while len(self._orders) > REMEMBERED:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(asked)
            return self._orders[asked]

    def moved(self, place: Place, *, number: int, asked: Filter | None = None) -> Place:
        """Another place, in the same filter's films or in another's: the nearest one there is."""
        asked = place.asked if asked is None else asked
        return Place(asked, min(max(number, 0), max(len(self.order(asked)) - 1, 0)), place.turn + 1)

    def page(self, place: Place) -> Page:
        """The page of a place; thumbnails of the next one are made in the background."""
        order = self.order(place.asked)
        first, pages = place.page * PAGE_ROWS, -(-len(order) // PAGE_ROWS)
        rows = [int(row) for row in order[first : first + PAGE_ROWS]]
        coming = [int(row) for row in order[first + PAGE_ROWS : first + 2 * PAGE_ROWS]]
        scores = self.index.scores.get(place.asked.score)
        small = self.thumbs.get(rows)
        self.thumbs.ahead(coming)
        cells = [
            self._cell(row, first + number, thumb, scores)
            for number, (row, thumb) in enumerate(zip(rows, small, strict=True))
        ]
        return Page(cells, len(order), place.page, max(pages, 1))

    def row(self, place: Place) -> int | None:
        """Row number of the film at a place; None where the filter lets nothing through."""
        order = self.order(place.asked)
        return int(order[place.number]) if place.number < len(order) else None

    def shown(self, row: int) -> Shown:
        """Everything about one film."""
        known = self.index.films.row(row)
        pixels, why = self._pixels(row)
        made = {
            name: str(value)
            for name, value in known.items()
            if name in (*records.PROVENANCE_COLUMNS, "judge", records.SOURCE_POLICY)
            and name not in ("id", "versions")
            and value is not None
        }
        return Shown(
            name=known["id"],
            png=None if pixels is None else thumbs.large(pixels),
            why=why,
            prompt=known["prompt"],
            labels=known["labels_dict"],
            verdict=self.index.quality.of(row),
            reason=self.index.reason.of(row),
            rated=self._rated(row),
            facts=self.index.facts(row),
            made=made,
        )

    def rate(self, row: int, quality: str) -> None:
        """Write down what a person says of a film; `TAKEN_BACK` takes it back.

        Raises:
            ValueError: nobody rates here, or it is none of the four classes.
        """
        if self.ratings is None:
            raise ValueError("expected a file of ratings to write to, got none; start the studio with --ratings FILE")
        self.ratings.add(self.index.films.ids[row], quality)

    def neighbours(self, row: int, count: int = 3) -> Sequence[Near]:
        """The nearest real films of a film.

        Raises:
            ValueError: no real set was given, or the film cannot be read.
        """
        if self.near is None:
            raise ValueError("expected a real set to look in, got none; start the studio with --real SET")
        pixels, why = self._pixels(row)
        if pixels is None:
            raise ValueError(f"expected a film, got one that cannot be read ({why}); choose another")
        return self.near.find(pixels, count)

    def pixels(self, row: int) -> np.ndarray:
        """A film's pixels; `images.UnreadableImage` where it has none."""
        return images.read(self.thumbs.reader.fetch([row])[0]).pixels

    def _pixels(self, row: int) -> tuple[np.ndarray | None, str]:
        try:
            return self.pixels(row), ""
        except images.UnreadableImage as error:
            return None, error.reason

    def _rated(self, row: int) -> str | None:
        return None if self.ratings is None else self.ratings.of(self.index.films.ids[row])

    def _cell(self, row: int, number: int, thumb: Thumb, scores: np.ndarray | None) -> Cell:
        index, name = self.index, self.index.films.ids[row]
        score = None if scores is None or not np.isfinite(scores[row]) else float(scores[row])
        return Cell(row, number, name, thumb, index.quality.of(row), index.reason.of(row), self._rated(row), score)


def key_of(key: str) -> str | None:
    """The class that a key stands for: 1 to 4 in the order of the four classes, 0 takes a rating back."""
    if key == "0":
        return TAKEN_BACK
    return records.QUALITIES[int(key) - 1] if key in ("1", "2", "3", "4") else None
