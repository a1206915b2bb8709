"""Image-text alignment: by hand, the exact null against all pairings, retrieval with copies and ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from synthchex.maths import alignment, intervals


def test_cosines_by_hand() -> None:
    images, texts = np.array([[3.0, 0], [1, 1], [0, -2]]), np.array([[1.0, 0], [1, 0], [0, 5]])
    assert alignment.cosines(images, texts).tolist() == pytest.approx([1, np.sqrt(0.5), -1])


@pytest.mark.parametrize("width", [3, 9])
def test_null_is_that_of_all_pairings(width: int) -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(6, width)), rng.normal(size=(6, width))
    left, right = alignment.unit(images, "images"), alignment.unit(texts, "texts")
    means = np.array([(left * right[list(order)]).sum(1).mean() for order in itertools.permutations(range(6))])
    found = alignment.shuffled_null(images, texts)
    assert found.mean == pytest.approx(means.mean(), rel=1e-10)
    assert found.deviation == pytest.approx(means.std(), rel=1e-10)
    assert found.z == pytest.approx((means[0] - means.mean()) / means.std(), rel=1e-10)


def test_null_of_constant_embeddings_is_no_evidence() -> None:
    same = np.ones((5, 4))
    found = alignment.shuffled_null(same, same)
    assert found == pytest.approx((1.0, 0.0, 0.0), abs=1e-8)


def test_z_grows_with_agreement() -> None:
    rng = np.random.default_rng(1)
    texts = rng.normal(size=(200, 16))
    unrelated = alignment.shuffled_null(rng.normal(size=(200, 16)), texts).z
    related = alignment.shuffled_null(texts + rng.normal(size=(200, 16)), texts).z
    assert abs(unrelated) < 4
    assert related > 30


def test_shuffled_p_is_seeded_and_bounded() -> None:
    rng = np.random.default_rng(2)
    texts = rng.normal(size=(30, 8))
    assert alignment.shuffled_p(texts, texts, shuffles=99) == 0.01
    unrelated = rng.normal(size=(30, 8))
    p = alignment.shuffled_p(unrelated, texts, shuffles=99, seed=5)
    assert p == alignment.shuffled_p(unrelated, texts, shuffles=99, seed=5)
    assert 0.01 < p <= 1
    assert alignment.shuffled_p(np.ones((5, 4)), np.ones((5, 4)), shuffles=9) == 1.0


def test_perfect_retrieval() -> None:
    corners = np.eye(12)
    to_text, to_image = alignment.retrieval_ranks(corners, corners, block=5)
    assert to_text.tolist() == to_image.tolist() == [1] * 12


def test_retrieval_by_hand() -> None:
    texts = np.array([[1.0, 0], [0, 1], [1, 1]])
    images = np.array([[0.9, 0.4], [0, 1], [1, 0]])  # nearest texts: 2 (then 0), 1, 0
    to_text, to_image = alignment.retrieval_ranks(images, texts)
    assert to_text.tolist() == [2, 1, 2]
    assert to_image.tolist() == [2, 1, 3]  # text 2 is nearer to image 0, and image 1 ties with its own
    assert alignment.recall_at(to_text, 1) == pytest.approx(1 / 3)


def test_copies_of_a_prompt_are_hits() -> None:
    texts = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    images = np.array([[1.0, 0.1], [1, 0.2], [0.1, 1], [0.9, 0]])
    for prompts in (None, ["edema", "edema", "normal", "edema"]):
        to_text, to_image = alignment.retrieval_ranks(images, texts, prompts)
        assert to_text.tolist() == [1, 1, 1, 1]
        assert to_image.tolist() == [1, 1]


def test_ties_count_against_the_right_one() -> None:
    same = np.ones((4, 3))
    to_text, to_image = alignment.retrieval_ranks(same, same, ["a", "b", "c", "d"])
    assert to_text.tolist() == to_image.tolist() == [4] * 4
    copies = np.tile(np.random.default_rng(0).normal(size=(1, 300)), (700, 1)).astype(np.float32)
    to_text, to_image = alignment.retrieval_ranks(copies, copies, [str(row) for row in range(700)], block=64)
    assert set(to_text) == set(to_image) == {700}


def test_win_rate_counts_ties_half() -> None:
    images = np.array([[1.0, 0], [0, 1], [1, 1]])
    texts, rivals = np.array([[1.0, 0], [1, 0], [1, 0]]), np.array([[0.0, 1], [0, 1], [0, 1]])
    assert alignment.win_rate(images, texts, rivals) == pytest.approx(0.5)  # a win, a loss, a tie


def test_invariant_to_order_rotation_and_length() -> None:
    rng = np.random.default_rng(3)
    images, texts = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    order, turn = rng.permutation(40), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = alignment.shuffled_null(images, texts)
    assert alignment.shuffled_null(images[order], texts[order]) == pytest.approx(found, rel=1e-9)
    assert alignment.shuffled_null(7 * images @ turn, texts @ turn) == pytest.approx(found, rel=1e-9)


def test_mean_interval_resamples_clusters() -> None:
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(25), 8)
    values = rng.normal(size=25)[clusters] + 0.1 * rng.normal(size=200)
    alone, together = intervals.of_mean(values), intervals.of_mean(values, clusters=clusters)
    assert together.standard_error > 2 * alone.standard_error
    assert together == intervals.of_mean(values, clusters=clusters)
    assert alone.low < values.mean() < alone.high
    assert alone.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=0.1)


def test_cosines_of_parts_by_hand() -> None:
    images, parts = np.array([[2.0, 0], [1, 1]]), np.array([[1.0, 0], [0, 3], [-1, 0]])
    found = alignment.part_cosines(images, parts, [np.array([0, 2]), np.array([1])])
    assert [each.tolist() for each in found.each] == [[1, -1], [pytest.approx(np.sqrt(0.5))]]
    assert found.mean.tolist() == pytest.approx([0, np.sqrt(0.5)])
    assert found.least.tolist() == pytest.approx([-1, np.sqrt(0.5)])
    whole = alignment.part_cosines(images, images, [np.array([0]), np.array([1])])  # one part is the report itself
    assert whole.mean.tolist() == alignment.cosines(images, images).tolist()
    with pytest.raises(ValueError, match="held: expected at least 1 part of every report, got none of report 1"):
        alignment.part_cosines(images, parts, [np.array([0]), np.array([], int)])
    with pytest.raises(ValueError, match="expected the parts of 2 reports of width 2, got 1 of width 2; encode"):
        alignment.part_cosines(images, parts, [np.array([0])])
    with pytest.raises(ValueError, match="parts: expected non-zero embeddings, got zeros in row 2"):
        alignment.part_cosines(images, 0 * images[[0, 0, 0]] + [[1, 0], [1, 0], [0, 0]], [np.array([0])] * 2)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (
            np.ones((3, 2)),
            np.ones((2, 2)),
            r"one prompt embedding per image.*\(3, 2\) for images and \(2, 2\) for texts",
        ),
        (np.ones((3, 2)), np.ones((3, 4)), "encoded by one image-text model"),
        (np.array([[1.0, 0], [0, 0]]), np.ones((2, 2)), "images: expected non-zero embeddings, got zeros in row 1"),
        (np.ones((2, 2)), np.array([[1, np.nan], [0, 1.0]]), "texts: expected finite features"),
    ],
)
def test_what_cannot_be_measured_is_refused(images: np.ndarray, texts: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alignment.cosines(images, texts)


def test_other_refusals() -> None:
    rows = np.eye(3)
    with pytest.raises(ValueError, match="expected at least 2 pairs to shuffle, got 1"):
        alignment.shuffled_null(rows[:1], rows[:1])
    with pytest.raises(ValueError, match="expected 3 prompts, one per image, got 2"):
        alignment.retrieval_ranks(rows, rows, ["a", "b"])
    with pytest.raises(ValueError, match="shuffles must be at least 1, got 0"):
        alignment.shuffled_p(rows, rows, shuffles=0)
