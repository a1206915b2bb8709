"""Screens: what they measure, limits that real films set, named reasons, groups that are kept once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from synthchex import phantom, screens
from synthchex.data import records
from synthchex.data.sources import ImageSet
from synthchex.models import encoders
from synthchex.screens import layout, limits, measured, neighbours, pixels

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
ALL_PIXELS = ("pixels", "exposure", "blur", "noise")
REAL, FRESH = 240, 40


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """Phantoms of 64 pixels, the reference first."""
    return list(phantom.make(REAL + FRESH, seed=5).images)


@pytest.fixture(scope="module")
def reference(drawn: list[np.ndarray]) -> ImageSet:
    """Real films, two of each patient."""
    return as_set(drawn[:REAL], patients=[str(number // 2) for number in range(REAL)])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store for the module."""
    return tmp_path_factory.mktemp("features")


def as_set(films: list[np.ndarray], **columns: object) -> ImageSet:
    """A set in memory."""
    return ImageSet("films", [str(number) for number in range(len(films))], films.__getitem__, **columns)  # type: ignore[arg-type]


def blur(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(2)))


def grain(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(film + rng.normal(0, 40, film.shape), 0, 255).astype(np.uint8)


def dark(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (255 * (film / 255.0) ** 5).astype(np.uint8)


def static(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, film.shape).astype(np.uint8)


def on_its_side(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(film))


def negative(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - film


# Measures ------------------------------------------------------------------------------------------------------------


def test_measures_of_a_film_by_hand() -> None:
    half = np.zeros((256, 256), np.uint8)
    half[:, 128:] = 255
    found = dict(zip(pixels.MEASURES, pixels.measures(half), strict=True))
    assert (found["mean"], found["contrast"]) == pytest.approx((127.5, 127.5))
    assert (found["dark"], found["bright"], found["levels"]) == pytest.approx((0.5, 0.5, 255))
    assert found["grain"] == pytest.approx(np.log(pixels.TINY), abs=1e-3), "an edge is no grain"


def test_grain_is_the_noise_that_was_added() -> None:
    rng = np.random.default_rng(0)
    slope = np.tile(np.linspace(60, 180, 256), (256, 1))
    noisy = np.rint(slope + rng.normal(0, 9, slope.shape)).astype(np.uint8)
    assert np.exp(pixels.measures(noisy)[pixels.MEASURES.index("grain")]) == pytest.approx(9, rel=0.03)


def test_blur_lowers_sharpness_at_every_step(drawn: list[np.ndarray]) -> None:
    at = pixels.MEASURES.index("sharpness")
    films = [np.asarray(Image.fromarray(drawn[0]).filter(ImageFilter.GaussianBlur(s))) for s in (0, 0.7, 1.4, 2.8)]
    sharp = [pixels.measures(film)[at] for film in films]
    assert sharp == sorted(sharp, reverse=True)


def test_colour_and_grey_of_a_film_measure_the_same(drawn: list[np.ndarray]) -> None:
    grey = drawn[0]
    np.testing.assert_allclose(pixels.measures(np.repeat(grey[:, :, None], 3, 2)), pixels.measures(grey))


# Limits --------------------------------------------------------------------------------------------------------------


def test_a_limit_is_passed_by_as_many_as_it_says() -> None:
    values = np.arange(999.0)
    assert limits.below(values, 0.01).low == 9.0  # the 10th least of 999: 9 are below, a new one is with chance 10/1000
    assert limits.above(values, 0.01).high == 989.0
    assert limits.between(values, 0.01) == (4.0, 994.0)


def test_few_films_set_the_limit_by_their_most_extreme_and_say_so() -> None:
    assert limits.below(np.array([3.0, 1.0, np.nan]), 0.01).low == 1.0
    assert limits.few(199, 0.01) is None
    assert "10 real films are too few" in str(limits.few(10, 0.01))
    with pytest.raises(ValueError, match="expected values of real films"):
        limits.below(np.array([np.nan]), 0.01)


def test_what_was_not_measured_is_not_outside() -> None:
    assert limits.Limits(0, 1).outside(np.array([-1, 0, 1, 2, np.nan])).tolist() == [True, False, False, True, False]
    assert limits.as_dict({"a": limits.Limits(low=2.0)}) == {"a": [2.0, None]}


# Neighbours ----------------------------------------------------------------------------------------------------------


def test_of_every_group_the_first_is_kept() -> None:
    near = np.array([[1], [2], [1], [-1], [-1]])
    close = np.array([[True], [True], [True], [False], [False]])
    # 0-1 and 1-2 are linked: 1 repeats 0; 2 is near 1 only, which is left out, so 2 stays. 4 is 3 by its key.
    assert neighbours.repeats([list("abcdd")], near, close).tolist() == [-1, 0, -1, -1, 3]


def test_copies_of_what_was_left_out_are_left_out_too() -> None:
    near, close = np.array([[1], [0], [-1]]), np.array([[True], [True], [False]])
    assert neighbours.repeats([list("abb")], near, close).tolist() == [-1, 0, 0]


def test_correlation_of_thumbnails() -> None:
    thumbs = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    found = neighbours.correlations(thumbs, np.stack([thumbs[0], 255 - thumbs[0]]), np.array([[0, 1], [0, -1]]))
    want = np.corrcoef(thumbs[0].ravel(), thumbs[1].ravel())[0, 1]
    np.testing.assert_allclose(found, [[1, -1], [want, -1]], atol=1e-12)


# Layout --------------------------------------------------------------------------------------------------------------


def test_layout_does_not_mind_exposure() -> None:
    thumb = np.random.default_rng(0).permutation(np.arange(64 * 64) // 32).reshape(1, 64, 64).astype(np.uint8)
    brighter = (255 * (thumb / 255) ** 0.5).astype(np.uint8)
    np.testing.assert_allclose(layout.layouts(brighter), layout.layouts(thumb), atol=0.4)


def test_distance_of_layouts_is_mahalanobis_where_films_are_many() -> None:
    rng = np.random.default_rng(0)
    spread = np.linspace(0.5, 3, 5)
    usual = layout.fit(rng.normal(0, 1, (20000, 5)) * spread + 7)
    rows = rng.normal(0, 1, (4, 5)) * 3 + 7
    np.testing.assert_allclose(layout.distance(rows, usual), np.linalg.norm((rows - 7) / spread, axis=1), rtol=0.05)


def test_too_few_patients_are_refused() -> None:
    rows = np.zeros((8, 63))
    with pytest.raises(ValueError, match="at least 5 patients, got 2"):
        layout.distances(rows, rows, np.array([0, 1] * 4))


def test_a_film_resembles_no_film_of_its_own_patient() -> None:
    thumbs = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    assert layout.resemblance(thumbs, thumbs) == pytest.approx([1, 1, 1], abs=1e-4)
    owners = np.array([0, 0, 1])
    found = layout.resemblance(thumbs, thumbs, owners=owners, real_owners=owners)
    assert (found < 0.2).all()


# Screens -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "asked", "reason"),
    [
        (blur, ALL_PIXELS, "blurred"),
        (grain, ALL_PIXELS, "noisy"),
        (dark, ALL_PIXELS, "exposure"),
        (static, ("chest",), "not_a_chest_film"),
        (on_its_side, ("chest",), "not_a_chest_film"),
        (negative, ("chest",), "not_a_chest_film"),
    ],
)
def test_spoiled_films_are_dropped_for_what_is_wrong_with_them(
    drawn: list[np.ndarray], reference: ImageSet, kept: Path, change: Change, asked: tuple[str, ...], reason: str
) -> None:
    rng = np.random.default_rng(0)
    good = drawn[REAL:]
    films = as_set([*good, *[change(film, rng) for film in good]])
    found = screens.screen(films, asked, screens.Means(reference=reference, store=kept))
    hit = found.found[reason]
    assert hit[FRESH:].mean() >= 0.9
    assert hit[:FRESH].mean() <= 0.1, "good films of new patients stay"
    assert found.real_dropped[reason] <= 0.03
    assert found.real_films == REAL
    assert found.reasons[FRESH:].count(None) <= 0.1 * FRESH


def test_films_that_show_nothing_need_no_reference() -> None:
    flat = [np.full((64, 64), level, np.uint8) for level in (0, 255, 128)]
    over = np.full((64, 64), 255, np.uint8)
    over[:20] = np.arange(64)
    found = screens.screen(as_set([*flat, over]), ["pixels"], screens.Means())
    assert found.reasons == ["constant", "constant", "constant", "saturated"]
    assert found.found["black"].tolist() == [True, False, False, False]
    assert found.limits["mean"] == (8, 247)


def test_films_with_text_are_dropped_and_side_markers_are_not() -> None:
    marked, plain = phantom.make(12, size=128, seed=3, markers=True), phantom.make(12, size=128, seed=3).images
    noted = [len(boxes) == 2 for boxes in marked.boxes]
    found = screens.screen(as_set([*marked.images, *plain]), ["text"], screens.Means())
    assert found.found["burned_in_text"].tolist() == [*noted, *[False] * 12]
    assert found.reasons[noted.index(True)] == "burned_in_text"
    assert found.limits["share of text"] == (-np.inf, 0)
    assert found.real_films == 0


def test_real_films_that_carry_text_set_the_limit_of_text() -> None:
    marked = phantom.make(24, size=128, seed=3, markers=True)
    real = as_set(list(marked.images[:12]))
    found = screens.screen(as_set(list(marked.images[12:])), ["text"], screens.Means(reference=real))
    limit = found.limits["share of text"].high
    assert limit > 0
    assert found.found["burned_in_text"].tolist() == (found.values["share of text"] > limit).tolist()
    assert found.real_dropped["burned_in_text"] == 0
    assert found.real_films == 12


def test_unreadable_films_get_no_reason_here() -> None:
    films = as_set([np.zeros((8, 8), np.uint8), b"not a film"])  # type: ignore[list-item]
    found = screens.screen(films, ["pixels"], screens.Means())
    assert found.reasons == ["constant", None]
    assert np.isnan(found.values["mean"]).tolist() == [False, True]


def test_of_films_that_are_alike_one_stays(drawn: list[np.ndarray], reference: ImageSet, kept: Path) -> None:
    good = drawn[REAL:]
    brighter = np.clip(good[3] * 1.05, 0, 255).astype(np.uint8)
    films = as_set([*good, good[7].copy(), brighter])
    means = screens.Means(reference=reference, encoder=encoders.load_encoder("phantom"), store=kept)
    found = screens.screen(films, ["duplicate"], means)
    assert found.reasons[-2:] == ["near_duplicate", "near_duplicate"]
    assert found.values["duplicate of row"][-2:].tolist() == [7, 3]
    assert found.reasons[:FRESH].count("near_duplicate") <= 0.1 * FRESH


def test_copies_of_real_films_are_found(drawn: list[np.ndarray], reference: ImageSet, kept: Path) -> None:
    good = drawn[REAL:]
    films = as_set([*good, drawn[0].copy(), np.clip(drawn[9] * 0.9, 0, 255).astype(np.uint8)])
    means = screens.Means(reference=reference, encoder=encoders.load_encoder("phantom"), store=kept)
    found = screens.screen(films, ["copy"], means)
    assert found.reasons[-2:] == ["copy_of_real", "copy_of_real"]
    assert found.reasons[:FRESH].count("copy_of_real") <= 0.1 * FRESH


def test_mirrored_films_are_found_by_an_encoder_of_their_domain(
    drawn: list[np.ndarray], reference: ImageSet, kept: Path
) -> None:
    good = drawn[REAL:]
    films = as_set([*good, *[np.ascontiguousarray(film[:, ::-1]) for film in good]])
    means = screens.Means(reference=reference, encoder=encoders.load_encoder("phantom"), store=kept)
    found = screens.screen(films, ["mirrored"], means).found["mirrored"]
    assert found[FRESH:].mean() >= 0.9
    assert found[:FRESH].mean() <= 0.1


class Told:
    """A classifier that reads its answer off the film's first pixel."""

    key, heads = "told", ["PA", "LATERAL"]

    def encode(self, films: list[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Logits of the two views."""
        return np.array([[0.0, 1.0] if film[0, 0] else [1.0, 0.0] for film in films], np.float32)


def test_a_view_that_may_not_stay_is_dropped() -> None:
    films = np.full((3, 16, 16), 100, np.uint8)
    films[:, 0, 0] = 0, 9, 0
    means = screens.Means(view_classifier=Told(), views=("PA",))
    assert screens.screen(as_set(list(films)), ["view"], means).reasons == [None, "wrong_view", None]


def test_agreement_is_the_mean_log_likelihood_of_stated_labels() -> None:
    likely = np.full((3, 14), 0.9)
    likely[:, 1] = np.nan
    states = np.full((3, 14), np.nan)
    states[0, :3] = 1, 1, 0
    states[1, 3] = -1
    found = measured.agreement(likely, states)
    assert found[0] == pytest.approx((np.log(0.9) + np.log(0.1)) / 2)
    assert np.isnan(found[1:]).all(), "nothing is stated"


class Believer:
    """A classifier whose first label follows the film's first pixel."""

    key = "believer"

    def encode(self, films: list[np.ndarray], *, batch_size: int = 0) -> np.ndarray:
        """Probabilities of 14 labels."""
        out = np.full((len(films), 14), np.nan, np.float32)
        out[:, 0] = [0.95 if film[0, 0] else 0.05 for film in films]
        return out


def test_a_film_that_does_not_show_its_labels_is_dropped() -> None:
    films = np.full((40, 16, 16), 100, np.uint8)
    films[:, 0, 0] = np.arange(40) % 2
    films[:, 1, 1] = np.arange(40)
    right = np.full((40, 14), np.nan)
    right[:, 0] = np.arange(40) % 2
    wrong = right.copy()
    wrong[5, 0] = 0
    means = screens.Means(reference=as_set(list(films), labels=right), classifier=Believer())
    found = screens.screen(as_set(list(films), labels=wrong), ["labels"], means)
    assert [row for row, reason in enumerate(found.reasons) if reason] == [5]
    assert found.reasons[5] == "label_mismatch"


@pytest.mark.parametrize(
    ("asked", "means", "message"),
    [
        (["sharp"], screens.Means(), r"expected screens among .* got \['sharp'\]"),
        (["blur"], screens.Means(), "the screen 'blur' needs reference"),
        (["labels"], screens.Means(), "needs reference and classifier"),
        (["view"], screens.Means(view_classifier=Told(), views=("AP",)), r"views must be among \['PA', 'LATERAL'\]"),
        (["pixels"], screens.Means(false_drops=0.7), "between 0 and 0.5, got 0.7"),
        (
            ["labels"],
            screens.Means(reference=as_set([np.zeros((4, 4), np.uint8)]), classifier=Believer()),
            "sets its limit by real labels, got none",
        ),
    ],
)
def test_what_cannot_be_screened_is_refused_first(asked: list[str], means: screens.Means, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        screens.check(asked, means)


def test_what_was_found_fits_into_json() -> None:
    import json

    found = screens.screen(as_set([np.zeros((8, 8), np.uint8)]), ["pixels"], screens.Means())
    said = json.loads(json.dumps(found.as_dict()))
    assert said["dropped"] == {"constant": 1, "black": 0, "white": 0, "saturated": 0}
    assert said["would_drop"]["black"] == 1
    assert records.LABELS[0] == "No Finding"
