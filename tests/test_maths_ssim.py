"""MS-SSIM: equal images, by a plain loop, pairs and their error, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthchex.maths import ssim

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def films(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth images with noise, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, height // 16 + 1, width // 16 + 1))
    smooth = np.kron(coarse, np.ones((16, 16)))[:, :height, :width] * 40 + 120
    return list(np.clip(smooth + rng.normal(size=smooth.shape) * 12, 0, 255).astype(np.uint8))


def by_definition(x: np.ndarray, y: np.ndarray, scales: int) -> float:
    """Two-dimensional windows, float64, formula as written."""
    from scipy.signal import convolve2d

    grid = np.arange(11) - 5.0
    window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def local(a: np.ndarray) -> np.ndarray:
        return convolve2d(a, window, mode="valid")

    def half(a: np.ndarray) -> np.ndarray:
        a = np.pad(a, [(0, side % 2) for side in a.shape], mode="edge")
        return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4

    a, b, value = x.astype(np.float64), y.astype(np.float64), 1.0
    for scale in range(scales):
        ma, mb = local(a), local(b)
        cs = (2 * (local(a * b) - ma * mb) + 58.5225) / (local(a * a) - ma**2 + local(b * b) - mb**2 + 58.5225)
        if scale == scales - 1:
            cs *= (2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025)
        value *= max(cs.mean(), 0) ** (WEIGHTS[scale] / (1 if scales == 5 else sum(WEIGHTS[:scales])))
        a, b = half(a), half(b)
    return value


def test_flat_images_by_hand() -> None:
    # No variance: cs = 1 at all scales; l = (2 * 100 * 150 + C1) / (100^2 + 150^2 + C1) to the last weight.
    x, y = np.full((161, 161), 100, np.uint8), np.full((161, 161), 150, np.uint8)
    luminance = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert ssim.ms_ssim(x, y) == pytest.approx(luminance**0.1333, rel=3e-6)
    assert ssim.ms_ssim(x[:11, :11], y[:11, :11], scales=1) == pytest.approx(luminance, rel=3e-6)


@pytest.mark.parametrize(("shape", "scales"), [((161, 173), 5), ((81, 96), 4), ((11, 12), 1), ((23, 21), 2)])
def test_equal_to_the_definition(shape: tuple[int, int], scales: int) -> None:
    x, y = films(2, *shape)
    assert ssim.ms_ssim(x, y, scales=scales) == pytest.approx(by_definition(x, y, scales), abs=2e-5)
    near = np.clip(x.astype(int) + 3, 0, 255).astype(np.uint8)
    assert ssim.ms_ssim(x, near, scales=scales) == pytest.approx(by_definition(x, near, scales), abs=2e-5)


def test_identity_symmetry_and_opposites() -> None:
    x, y = films(2, 165, 180)
    assert ssim.ms_ssim(x, x) == 1.0
    assert ssim.ms_ssim(x, y) == pytest.approx(ssim.ms_ssim(y, x), abs=1e-7)
    assert ssim.ms_ssim(x[::-1], y[::-1]) != 0
    assert ssim.ms_ssim(x[:, ::-1][:160, :160], y[:, ::-1][:160, :160], scales=2) == pytest.approx(
        ssim.ms_ssim(x[:, ::-1][:160, :160][:, ::-1], y[:, ::-1][:160, :160][:, ::-1], scales=2), abs=1e-6
    )
    assert ssim.ms_ssim(x, 255 - x) == 0.0  # a negative mean counts as 0


def test_each_image_is_prepared_once_even_when_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    images = films(5, 40, 40)
    pairs = ssim.draw_pairs(5, 10, np.random.default_rng(0))[::-1]
    made: list[int] = []
    prepare = ssim._pyramid
    monkeypatch.setattr(ssim, "_pyramid", lambda image, scales: (made.append(image[0, 0]), prepare(image, scales))[1])
    values = ssim.pair_similarities(images, pairs, scales=2)
    assert len(made) == 5
    monkeypatch.setattr(ssim, "KEPT_BYTES", 1)
    assert ssim.pair_similarities(images, pairs, scales=2) == pytest.approx(values, rel=0, abs=0)
    assert values == pytest.approx([ssim.ms_ssim(images[i], images[j], scales=2) for i, j in pairs], rel=0, abs=0)


@pytest.mark.parametrize(("count", "asked"), [(2, 1), (2, 100), (7, 21), (7, 20), (300, 50), (100_000, 30)])
def test_pairs_are_different_and_inside(count: int, asked: int) -> None:
    pairs = ssim.draw_pairs(count, asked, np.random.default_rng(0))
    assert len(pairs) == min(asked, count * (count - 1) // 2) == len({tuple(pair) for pair in pairs.tolist()})
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.min() >= 0
    assert pairs.max() < count
    again = ssim.draw_pairs(count, asked, np.random.default_rng(0))
    assert (pairs == again).all()


def test_error_knows_that_pairs_share_images() -> None:
    # h(x, y) = x + y over all pairs of n: the mean is 2 mean(x), whose standard error is 2 sd / sqrt(n).
    x = np.random.default_rng(0).normal(size=200)
    pairs = ssim.draw_pairs(200, 10**6, np.random.default_rng(0))
    found = ssim.mean_of_pairs(x[pairs].sum(axis=1), pairs)
    assert found.value == pytest.approx(2 * x.mean())
    assert found.standard_error == pytest.approx(2 * x.std(ddof=1) / math.sqrt(200), rel=0.02)
    apart = np.arange(200).reshape(100, 2)  # no image twice: the plain standard error
    values = x[apart].sum(axis=1)
    assert ssim.mean_of_pairs(values, apart).standard_error == pytest.approx(values.std(ddof=1) / 10)
    assert math.isnan(ssim.mean_of_pairs(values[:1], apart[:1]).standard_error)


def test_error_knows_that_patients_share_pairs() -> None:
    # The same sum over all pairs, of patients with four images each: 2 sd of the patients' means / sqrt(patients).
    patients = np.repeat(np.arange(50), 4)
    own = np.random.default_rng(0).normal(size=50)
    pairs = ssim.draw_pairs(200, 10**6, np.random.default_rng(0))
    values = own[patients][pairs].sum(axis=1)
    found = ssim.mean_of_pairs(values, pairs, patients).standard_error
    assert found == pytest.approx(2 * own.std(ddof=1) / math.sqrt(50), rel=0.05)
    assert found > 1.8 * ssim.mean_of_pairs(values, pairs).standard_error
    some = np.random.default_rng(1).choice(len(pairs), 300, replace=False)
    rest, ends = values[some] - values[some].mean(), patients[pairs[some]]
    shared = (ends[:, None, :, None] == ends[None, :, None, :]).any((2, 3))  # pairs of pairs with a patient in common
    direct = math.sqrt(rest @ shared @ rest) / len(rest)
    assert ssim.mean_of_pairs(values[some], pairs[some], patients).standard_error == pytest.approx(direct, rel=1e-9)
    assert math.isnan(ssim.mean_of_pairs(values[:9], pairs[:9], np.zeros(200, int)).standard_error)


def test_what_cannot_be_right_is_refused() -> None:
    x = np.zeros((160, 200), np.uint8)
    with pytest.raises(ValueError, match="sides of at least 161 pixels for 5 scales, got 160 x 200; pass scales=4 or"):
        ssim.ms_ssim(x, x)
    with pytest.raises(
        ValueError, match="image 0: expected sides of at least 11 pixels for 1 scales, got 10 x 10; pass l"
    ):
        ssim.ms_ssim(x[:10, :10], x[:10, :10], scales=1)
    with pytest.raises(ValueError, match="scales must be 1 to 5, got 6; 5 is the published number"):
        ssim.ms_ssim(x, x, scales=6)
    with pytest.raises(ValueError, match=r"expected images of one size, got \(160, 200\) for image 0 and \(160, 199\)"):
        ssim.ms_ssim(x, x[:, :199], scales=2)
    with pytest.raises(ValueError, match=r"image 0: expected grey pixels \(H, W\), got shape \(3, 20, 20\)"):
        ssim.ms_ssim(np.zeros((3, 20, 20)), x)
    with pytest.raises(ValueError, match="expected at least 2 images and 1 pair, got 1 and 5"):
        ssim.draw_pairs(1, 5, np.random.default_rng(0))


def test_many_thumbnails_at_once_are_pairs_one_by_one() -> None:
    rng = np.random.default_rng(11)
    first = rng.integers(0, 256, (37, 20, 16), np.uint8)
    second = np.where(rng.random(first.shape) < 0.2, rng.integers(0, 256, first.shape), first).astype(np.uint8)
    second[0] = first[0]
    expected = [ssim.ms_ssim(one, two, scales=1) for one, two in zip(first, second, strict=True)]
    np.testing.assert_allclose(ssim.thumbnail_similarities(first, second), expected, atol=1e-6)
    assert ssim.thumbnail_similarities(first, second)[0] == 1
    assert ssim.thumbnail_similarities(first[:0], second[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"pairs of images of one shape \(P, H, W\), got \(2, 20, 16\) and \(3, 20"):
        ssim.thumbnail_similarities(first[:2], second[:3])
