"""The phantom domain: deterministic rows, labels that agree with the words, markers inside their boxes."""

import numpy as np
import pytest

from synthchex import phantom
from synthchex.data.records import LABELS
from synthchex.phantom import reports
from synthchex.phantom.findings import DEVICES, FINDINGS
from synthchex.phantom.shapes import DRAWS, Dice, chord, step

# A word that the report must hold when, and only when, the label is set.
WORDS = {
    "Cardiomegaly": ("cardiomegaly", "enlargement"),
    "Lung Lesion": ("nodule",),
    "Edema": ("edema",),
    "Consolidation": ("consolidation", "pneumonia"),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("effusion",),
    "Pleural Other": ("thickening",),
    "Fracture": ("fracture",),
    "Support Devices": DEVICES,
}


@pytest.fixture(scope="module")
def films() -> phantom.Phantoms:
    return phantom.make(20, seed=7)


@pytest.fixture(scope="module")
def written() -> tuple[list[str], np.ndarray]:
    return phantom.write_reports(600, seed=11)


def test_same_seed_gives_the_same_films(films):
    again = phantom.make(20, seed=7)
    assert np.array_equal(films.images, again.images)
    assert films.reports == again.reports


def test_a_row_does_not_depend_on_the_count(films):
    fewer = phantom.make(5, seed=7)
    assert np.array_equal(fewer.images, films.images[:5])
    assert np.array_equal(fewer.labels, films.labels[:5])
    assert fewer.reports == films.reports[:5]


def test_another_seed_gives_other_films(films):
    other = phantom.make(4, seed=8)
    assert not np.array_equal(other.images, films.images[:4])


def test_reports_can_be_written_without_drawing(films):
    texts, labels = phantom.write_reports(20, seed=7)
    assert texts == films.reports
    assert np.array_equal(labels, films.labels)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_films_are_grey_bytes_of_the_size_asked_for(size):
    films = phantom.make(2, size=size, seed=1)
    assert films.images.shape == (2, size, size)
    assert films.images.dtype == np.uint8
    assert films.labels.shape == (2, len(LABELS))
    assert films.labels.dtype == np.int8


def test_no_films_are_no_films():
    films = phantom.make(0)
    assert films.images.shape == (0, 64, 64)
    assert films.labels.shape == (0, len(LABELS))
    assert films.reports == []


@pytest.mark.parametrize("label", WORDS)
def test_a_label_is_set_exactly_when_its_word_is_written(label, written):
    texts, labels = written
    said = np.array([any(word in text for word in WORDS[label]) for text in texts])
    assert said.any()
    assert np.array_equal(said, labels[:, LABELS.index(label)] == 1)


def test_parents_follow_their_children(written):
    _, labels = written
    column = {name: labels[:, index] for index, name in enumerate(LABELS)}
    for child in ("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Lung Lesion"):
        assert np.all(column["Lung Opacity"] >= column[child])
    assert np.all(column["Consolidation"] >= column["Pneumonia"])
    assert np.all(column["Enlarged Cardiomediastinum"] >= column["Cardiomegaly"])


def test_no_finding_means_nothing_but_devices(written):
    texts, labels = written
    clear = labels[:, 0] == 1
    assert np.array_equal(clear, labels[:, 1:-1].sum(1) == 0)
    said = np.array(["no acute" in text or "lungs are clear" in text for text in texts])
    assert np.array_equal(said, clear)


def test_every_finding_occurs(written):
    _, labels = written
    assert np.all(labels.sum(0) > 0)


def test_every_written_word_is_in_the_vocabulary(written):
    texts, _ = written
    assert {word for text in texts for word in text.split()} <= set(reports.vocabulary())


def test_every_finding_has_words():
    assert set(reports._PHRASES) == set(FINDINGS)


def test_a_side_named_right_is_on_the_left_of_the_picture():
    images, chart = phantom.make(160, seed=2).images, phantom.draw_charts(160, seed=2)
    right, left = chart.on_side("effusion", 0), chart.on_side("effusion", 1)
    base = images[:, 34:42, 12:22]
    assert base[right & ~left].mean() > base[left & ~right].mean() + 20


def test_markers_leave_everything_outside_their_boxes_alone():
    plain, marked = phantom.make(6, seed=3), phantom.make(6, seed=3, markers=True)
    assert all(boxes == () for boxes in plain.boxes)
    for before, after, boxes in zip(plain.images, marked.images, marked.boxes, strict=True):
        inside = np.zeros(before.shape, bool)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
            assert (after[top:bottom, left:right] > 200).any()
            inside[top:bottom, left:right] = True
        assert np.array_equal(before[~inside], after[~inside])
        assert not np.array_equal(before, after)


def test_no_row_runs_out_of_draws():
    from synthchex.phantom import film

    seen = []

    class Counting(Dice):
        def __init__(self, table):
            super().__init__(table)
            seen.append(self)

    original, film.Dice = film.Dice, Counting
    try:
        phantom.make(1)
    finally:
        film.Dice = original
    assert 0 < seen[0].column <= DRAWS


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        phantom.make(-1)


def test_a_tiny_size_is_refused():
    with pytest.raises(ValueError, match="at least 32 pixels, got 16"):
        phantom.make(1, size=16)


def test_shapes_by_hand():
    assert step(np.array([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]
    assert chord(np.array([0.0, 0.75, 1.0, 2.0])).tolist() == [1.0, 0.5, 0.0, 0.0]
