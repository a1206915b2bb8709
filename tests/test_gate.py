"""The gate: copies are found whatever was done to them, other patients are not, nobody is named."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from synthchex import gate
from synthchex.data import images, records, shards, sources
from synthchex.data.sources import ImageSet
from synthchex.gate import calibration, copies, identifiers, looks, metadata, planted, registration, signatures, texts
from synthchex.gate.release import Terms, features, free_text, namer, release
from synthchex.maths import limits

ROOT = Path(__file__).resolve().parents[1]
OPEN = Terms("open", "keep")


class Means:
    """An encoder without a network: means of 8 x 8 parts."""

    key = "means"

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Features, float32 (N, 64)."""
        small = [Image.fromarray(images.to_grey(film)).resize((8, 8), Image.Resampling.BOX) for film in pixels]
        return np.stack([np.asarray(film, np.float32).ravel() for film in small])


def film(seed: int, shape: tuple[int, int] = (120, 150)) -> np.ndarray:
    """A smooth film like no other, with structure of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.random((n, n), np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC)) / n
        for n in (4, 8, 16, 32)
    ]
    mixed = np.sum(layers, axis=0)
    return np.rint(255 * (mixed - mixed.min()) / np.ptp(mixed)).astype(np.uint8)


def as_set(films: Sequence[np.ndarray], patients: Sequence[str] | None = None) -> ImageSet:
    return ImageSet("here", [str(i) for i in range(len(films))], films.__getitem__, patients=patients)


@pytest.fixture(scope="module")
def real() -> ImageSet:
    """48 films of 24 patients."""
    return as_set([film(seed) for seed in range(48)], [f"patient {row // 2}" for row in range(48)])


@pytest.fixture(scope="module")
def known(real: ImageSet) -> copies.Reference:
    return copies.reference(copies.see(real, Means(), None, num_workers=0), real.patients)


def look(films: Sequence[np.ndarray]) -> copies.Seen:
    return copies.see(as_set(films), Means(), None, num_workers=0)


# Looks -------------------------------------------------------------------------------------------------------------


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """Distance of the hashes of two whole films."""
    thumbs = np.stack([signatures.thumbnail(one), signatures.thumbnail(other)])
    found = signatures.hashes(thumbs, np.tile(signatures.WHOLE, (2, 1, 1)))[:, 0]
    return int(np.bitwise_count(found[0] ^ found[1]))


def test_the_hash_ignores_brightness_and_turns_over_with_a_negative() -> None:
    one = film(0)
    assert apart(one, one) == 0
    assert apart(one, np.rint(255 * (one / 255) ** 1.6).astype(np.uint8)) <= 4
    assert apart(one, 255 - one) == 64
    assert 16 < apart(one, film(1)) < 48


def test_the_hash_of_a_window_is_that_of_the_crop() -> None:
    one = film(0, (200, 200))
    window = np.array([[[0.1, 0.0, 0.9, 0.8]]])
    whole = signatures.hashes(signatures.thumbnail(one)[None], window)[0, 0]
    crop = signatures.thumbnail(one[0:160, 20:180])
    alone = signatures.hashes(crop[None], np.array([[signatures.WHOLE]]))[0, 0]
    assert np.bitwise_count(whole ^ alone) <= 6


def test_windows_have_the_centre_square_and_what_is_inside_borders() -> None:
    wide = np.zeros((100, 200), np.uint8)
    wide[25:75] = film(0, (50, 200))
    windows = signatures.windows(signatures.signature(wide)[None])[0]
    assert windows[0] == pytest.approx([0, 0.25, 1, 0.75], abs=0.04)
    assert windows[1] == pytest.approx([0.25, 0, 0.75, 1])
    assert windows[2] == pytest.approx(signatures.WHOLE)
    assert signatures.content(np.full((1, 64, 64), 7, np.uint8))[0].tolist() == [0, 0, 1, 1]


def test_ranks_share_ties_and_average_to_zero() -> None:
    thumb = np.repeat(np.array([0, 255], np.uint8), 2048).reshape(1, 64, 64)
    assert np.unique(signatures.ranks(thumb)).tolist() == [-0.25, 0.25]


def test_films_are_laid_over_each_other_across_shift_scale_and_turn() -> None:
    one = film(0, (300, 300))
    moved = np.asarray(Image.fromarray(one).rotate(4, Image.Resampling.BICUBIC))[20:290, 15:280]
    pair = [registration.contrast(signatures.thumbnail(side)[None], 64) for side in (moved, one)]
    begun = registration.begin(np.array([signatures.WHOLE]), np.array([signatures.WHOLE]))
    before = registration.lay(*pair, begun, steps=0)
    after = registration.lay(*pair, begun, steps=20)
    assert float(after.correlation) > 0.9 > float(before.correlation)
    assert float(after.maps[0, 0, 0]) == pytest.approx(265 / 300, abs=0.03)
    other = registration.contrast(signatures.thumbnail(film(1))[None], 64)
    assert float(registration.lay(other, pair[1], begun, steps=20).correlation) < 0.6


def test_a_map_takes_a_box_to_a_window() -> None:
    (found,) = registration.begin(np.array([[0.1, 0.1, 0.9, 0.9]]), np.array([[0.0, 0.5, 0.5, 1.0]])).numpy()
    corners = np.array([[-0.8, -0.8, 1], [0.8, 0.8, 1]])
    assert corners @ found.T == pytest.approx(np.array([[-1, 0], [0, 1]]), abs=1e-6)


# Copies ------------------------------------------------------------------------------------------------------------


def test_content_and_pixels_are_found_and_one_s_own_patient_is_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = images.to_png(film(0)), io.BytesIO()
    Image.fromarray(film(1)).save(two, "PNG", compress_level=0)
    (tmp_path / "a" / "0.png").write_bytes(one)
    (tmp_path / "a" / "1.png").write_bytes(images.to_png(film(1)))
    for name, content in (("0", one), ("1", two.getvalue()), ("2", images.to_png(film(2)))):
        (tmp_path / "b" / f"{name}.png").write_bytes(content)
    here, there = (copies.see(sources.open_images(tmp_path / name), Means(), None, num_workers=0) for name in "ba")
    reference = copies.reference(there, ["p", "q"])
    near = copies.nearness(here, reference, num_workers=0)
    assert near.exact.tolist() == [0, -1, -1]
    assert near.pixels.tolist() == [0, 1, -1]
    assert near.laid[:2].tolist() == near.near[:2].tolist() == [0, 1]
    assert near.distance[:2].tolist() == [0, 0]
    own = copies.nearness(here, reference, owners=np.array([0, 1, -1]), num_workers=0)
    assert own.exact.tolist() == own.pixels.tolist() == [-1, -1, -1]
    assert own.near[:2].tolist() == [1, 0]


def test_threads_and_blocks_change_nothing(known: copies.Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = look([film(3)[5:], film(200), film(201)])
    whole = copies.nearness(seen, known, num_workers=0)
    for module, name in ((copies, "BATCH"), (looks, "BLOCK")):
        monkeypatch.setattr(module, name, 2)
    parts = copies.nearness(seen, known, num_workers=2)
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert whole.laid[0] == whole.near[0] == 3


def null_of(correlation: np.ndarray, distance: np.ndarray) -> copies.Nearness:
    nobody = np.full(len(distance), -1)
    return copies.Nearness(nobody, nobody, correlation, nobody, distance, nobody)


def test_thresholds_leave_the_allowed_chance_to_a_new_patient() -> None:
    count = 999
    null = null_of(np.arange(count) / count, np.arange(count, 0, -1.0))
    limits = calibration.thresholds(null, np.arange(count), 0.01)  # the 5th nearest of 999, for each
    assert np.count_nonzero(null.correlation > limits.correlation + 1e-9) == 4
    assert limits.distance == pytest.approx(5.0)
    # Films of one patient count once: with 3 each, the 5th nearest patient is the 13th film.
    whose = calibration.thresholds(null, np.arange(count) // 3, 0.03)
    assert whose.distance == pytest.approx(13.0)
    with pytest.raises(ValueError, match="expected real films that are not each other's copies to set thresholds on"):
        calibration.thresholds(null_of(np.zeros(0), np.zeros(0)), np.zeros(0), 0.01)


def test_with_few_patients_the_tail_is_drawn_out_and_holds() -> None:
    rng, passed = np.random.default_rng(0), []
    for _ in range(400):
        distance = rng.exponential(size=41) ** 0.3
        limits = calibration.thresholds(null_of(np.zeros(40), distance[1:]), np.arange(40), 0.02)
        passed.append(distance[0] < limits.distance)
    assert 0 < np.mean(passed) < 0.03  # 0.01 of the features' half; the nearest of 40 alone would let 0.024 pass


def test_false_alarms_do_not_look_at_the_patient_from_the_other_side() -> None:
    # Two patients near to each other only: each alone would set the threshold that excuses the other.
    correlation, distance = np.full(30, 0.1), np.full(30, 9.0)
    correlation[:2], near = 0.9, np.arange(30)[::-1].copy()
    near[:2] = [1, 0]
    null = null_of(correlation, distance)._replace(laid=near, near=near)
    seen = look([film(seed) for seed in range(30)])
    known = copies.reference(seen, None)
    assert calibration._accused(null, known.owners, known, 0.01)[:2].all()


def test_a_share_has_the_exact_binomial_interval() -> None:
    found = limits.share(np.zeros(10, bool))
    assert (found.hits, found.low, found.high) == (0, 0.0, pytest.approx(1 - 0.025 ** (1 / 10)))


def test_planted_copies_are_caught_and_other_patients_are_not(real: ImageSet, known: copies.Reference) -> None:
    trial = calibration.Trial(copied=24)
    measured = calibration.calibrate(real, known, Means(), trial, num_workers=0)
    assert measured.missed == []
    caught = {kind: shares["any"].value for kind, shares in measured.caught.items()}
    sure = ("mirrored", "negative", "noise 0.05", "squashed to 256", "centre square", "crop 10 %", "gamma", "jpeg 30")
    assert {kind: caught[kind] for kind in sure} == dict.fromkeys(sure, 1.0)
    assert measured.caught["mirrored"]["features"].value < 0.5
    assert (measured.films, measured.patients, measured.patients_known, measured.repeats) == (48, 24, True, 0)
    assert measured.false_alarms.hits <= 2


def test_a_gate_that_sees_nothing_says_so(real: ImageSet, known: copies.Reference) -> None:
    changes = {**dict.fromkeys(planted.NEEDED, planted.exact), "crop 5 %": lambda one, rng: film(999)}
    measured = calibration.calibrate(real, known, Means(), calibration.Trial(copied=5), changes=changes, num_workers=0)
    assert measured.missed == ["crop 5 %"]


def test_a_real_film_that_two_patients_have_does_not_blunt_the_thresholds(real: ImageSet) -> None:
    doubled = as_set([*map(real.fetch, range(48)), film(0)], [*(real.patients or ()), "twin"])
    seen = copies.reference(copies.see(doubled, Means(), None, num_workers=0), doubled.patients)
    trial = calibration.Trial(copied=3)
    measured = calibration.calibrate(doubled, seen, Means(), trial, changes=planted.KINDS, num_workers=0)
    assert measured.repeats == 2
    assert measured.thresholds.correlation < 0.9


def test_too_few_patients_are_refused(known: copies.Reference, real: ImageSet) -> None:
    few = real.take(range(10))
    reference = copies.reference(copies.see(few, Means(), None, num_workers=0), few.patients)
    with pytest.raises(ValueError, match="expected real films of at least 20 patients to calibrate on, got 5"):
        calibration.calibrate(few, reference, Means(), calibration.Trial(), num_workers=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"false_alarms": 0.0}, "false_alarms must be a share between 0 and 1, got 0.0"),
        ({"copied": 0}, "judged and copied must be at least 1, got 1000 and 0"),
    ],
)
def test_a_trial_that_measures_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration.Trial(**given)


def test_planted_copies_depend_on_film_and_kind_alone(real: ImageSet) -> None:
    some, other = ([3, 5], [5])
    first = calibration.copies_of(real, some, planted.KINDS, 0)
    second = calibration.copies_of(real, other, planted.KINDS, 0)
    assert first.ids[len(planted.KINDS)] == second.ids[0] == "exact of 5"
    for kind in range(len(planted.KINDS)):
        assert (first.fetch(len(planted.KINDS) + kind) == second.fetch(kind)).all()


def test_the_embedded_autoencoder_gives_back_a_film_of_its_size() -> None:
    pytest.importorskip("diffusers")
    from synthchex.models.encoders import ASSETS

    one = film(0, (64, 64))
    back = planted.round_trip(str(ASSETS / "phantom" / "generator"), device="cpu")(one, np.random.default_rng(0))
    assert (back.shape, back.dtype) == ((64, 64), np.uint8)
    assert np.corrcoef(back.ravel(), one.ravel())[0, 1] > 0.9
    with pytest.raises(ValueError, match="expected a pipeline with an autoencoder, got nowhere/at-all"):
        planted.round_trip("nowhere/at-all", device="cpu")


def real_films() -> Path | None:
    """A folder with real films (png/) and their patients (data.csv), where there is one."""
    named = os.environ.get("SYNTHCHEX_FILMS")
    return Path(named) if named else next(ROOT.parent.glob("*/data/hannover-cxr"), None)


def on_real_films(trial: calibration.Trial) -> calibration.Calibration:
    from synthchex.models import encoders

    folder = real_films()
    if folder is None:
        pytest.skip("no real films: name a folder with data.csv and png/ in SYNTHCHEX_FILMS")
    films = sources.open_images(folder / "data.csv", columns={"image": "image_id"}, image_dir=folder / "png")
    encoder = encoders.load_encoder("phantom", device="cpu")
    seen = copies.reference(copies.see(films, encoder, None, num_workers=0), films.patients)
    changes = planted.KINDS if trial.copied > 100 else {kind: planted.KINDS[kind] for kind in planted.NEEDED}
    return calibration.calibrate(films, seen, encoder, trial, changes=changes, num_workers=0)


def test_on_real_films_the_needed_kinds_are_caught_and_other_patients_are_not() -> None:
    measured = on_real_films(calibration.Trial(copied=40))
    assert measured.patients_known
    assert {kind: measured.caught[kind]["any"].value for kind in planted.NEEDED} == dict.fromkeys(planted.NEEDED, 1.0)
    assert measured.false_alarms.value <= 0.02


@pytest.mark.slow
def test_on_all_real_films_every_kind_has_a_figure() -> None:
    measured = on_real_films(calibration.Trial(copied=243))
    assert measured.missed == []
    assert min(measured.caught[kind]["any"].low for kind in planted.NEEDED) > 0.98
    assert min(shares["any"].value for shares in measured.caught.values()) > 0.7


# Identifiers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm", ["MIMIC-CXR dicom_id"]),
        ("files/p10/p10000032/s50414267/film", ["MIMIC-CXR subject", "MIMIC-CXR study"]),
        ("train/patient00001/study1/view1_frontal.jpg", ["CheXpert patient"]),
        ("00000001_000.png", ["NIH ChestX-ray14 film"]),
        ("CXR12_IM-0143-1001", ["Open-i film"]),
        ("216840111366964012283393834152009033102258826_00-049-174.png", ["PadChest film"]),
        ("1.2.840.113619.2.55.3.604", ["DICOM UID"]),
        ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", ["UUID"]),
        ("seen on 2016-03-02 and 3/14/2017", ["date"]),
        ("accession 50414267", ["long number"]),
        ("comparison to ___", ["mark of de-identification"]),
        ("XXXX-year-old with effusion", ["mark of de-identification"]),
        ("made from /home/jane/mimic", ["path on a machine"]),
        ("model (/scratch/jane/sana-lora)", ["path on a machine"]),
        (r"C:\Users\jane\films", ["path on a machine"]),
        ("film 0a1b2c3d4e5f60718293a4b5c6d7e8f9", ["VinDr-CXR film"]),
    ],
)
def test_identifiers_are_found_by_their_published_forms(text: str, kinds: list[str]) -> None:
    assert identifiers.named(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "No acute process. Heart size 12.5 cm, C/T ratio 0.48; T12 fracture, 1-2 weeks old, 3/4 of the lung.",
        "1. Stable cardiomegaly. 2. Small left effusion. 3. PICC 1.2.3",
        "SpO2 92 %, 2 L O2, pO2 61.2, pages 100-102, ET tube 4.5 cm above the carina at 10:45",
        "Chest radiograph. Findings: edema. Absent: pneumothorax.",
        "film-3f9c01", "MAXXX", "snake_case__name",
    ],
)  # fmt: skip
def test_reports_without_identifiers_raise_no_alarm(text: str) -> None:
    assert identifiers.named(text) == []


def test_versions_and_revisions_are_no_identifiers() -> None:
    said = '{"torch": "2.13.0+cpu", "date": "2025-01-02"} 1a2b3c4d5e6f70819203a4b5c6d7e8f901234567 20250102'
    assert identifiers.named(said, strong=True) == []
    assert identifiers.named(said) == ["date", "long number"]
    assert identifiers.count(["p10000032", "p10000033", ""], strong=True) == {"MIMIC-CXR subject": 2}


# Metadata ----------------------------------------------------------------------------------------------------------


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[0x010E] = "patient00001/study1"
    if orientation != 1:
        found[0x0112] = orientation
    return found


def tiff_with_tags() -> bytes:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[270], tags[65000] = "patient00001/study1", "s50414267"
    return saved(film(0), "TIFF", tiffinfo=tags, compression="tiff_deflate")


def odd_jpeg() -> bytes:
    """A JPEG whose colour segment holds a name too."""
    content = saved(film(0), "JPEG")
    return content[:2] + b"\xff\xee" + (22).to_bytes(2, "big") + b"Adobe\0d\0\0\0\0\0s5041426" + content[2:]


def png_with_text() -> bytes:
    said = PngInfo()
    said.add_text("prompt", "subject p10000032")
    said.add_itxt("more", "s50414267", zip=True)
    return saved(film(0), "PNG", pnginfo=said, exif=exif(), dpi=(72, 72))


@pytest.mark.parametrize(
    ("content", "suffix", "named"),
    [
        (png_with_text(), ".png", {"MIMIC-CXR subject", "MIMIC-CXR study", "CheXpert patient"}),
        (png_with_text() + b"\np10000032", ".png", {"MIMIC-CXR subject", "MIMIC-CXR study", "CheXpert patient"}),
        (saved(film(0), "JPEG", exif=exif(), comment="s50414267"), ".jpg", {"MIMIC-CXR study", "CheXpert patient"}),
        (saved(film(0), "JPEG", progressive=True, exif=exif()), ".jpg", {"CheXpert patient"}),
        (saved(film(0), "JPEG", exif=exif()) + saved(film(1), "JPEG", comment="p1000"), ".jpg", {"CheXpert patient"}),
        (saved(film(0), "JPEG", exif=exif(6)), ".png", {"CheXpert patient"}),
        (saved(film(0), "TIFF", exif=exif()), ".png", {"CheXpert patient"}),
        (saved(film(0), "WEBP", lossless=True, exif=exif()), ".png", {"CheXpert patient"}),
        (tiff_with_tags(), ".png", {"CheXpert patient", "MIMIC-CXR study"}),
        (saved(film(0), "PNG", icc_profile=b"profile of s50414267"), ".png", {"MIMIC-CXR study"}),
        (saved(film(0), "JPEG", icc_profile=b"profile of s50414267"), ".jpg", {"MIMIC-CXR study"}),
        (saved(film(0), "JPEG", xmp=b"<x:xmpmeta>s50414267</x:xmpmeta>"), ".jpg", {"MIMIC-CXR study"}),
        (saved(film(0), "WEBP", lossless=True, xmp=b"<x>s50414267</x>"), ".png", {"MIMIC-CXR study"}),
        (saved(film(0).astype(np.uint16) * 16, "PNG"), ".png", set()),
        (saved(np.stack([film(0), film(1), film(2)], 2), "PNG", pnginfo=None), ".png", set()),
    ],
    ids=["png", "png and more", "jpeg", "progressive", "two jpegs", "turned", "tiff", "webp", "tiff tags",
         "png profile", "jpeg profile", "jpeg xmp", "webp xmp", "16-bit", "colour"],
)  # fmt: skip
def test_files_lose_all_but_their_pixels(content: bytes, suffix: str, named: set[str]) -> None:
    clean = metadata.cleaned(content)
    assert {kind for text in clean.said for kind in identifiers.named(text, strong=True)} == named
    assert clean.suffix == suffix
    assert (images.read(clean.content).pixels == images.read(content).pixels).all()
    assert list(metadata.texts(clean.content)) == []
    assert b"p1000" not in clean.content
    again = metadata.cleaned(clean.content)
    assert (again.content, again.said) == (clean.content, ())


def test_a_jpeg_with_a_strange_segment_is_written_anew() -> None:
    content = odd_jpeg()
    assert b"s504142" in content
    clean = metadata.cleaned(content)
    assert b"s504142" not in clean.content
    assert (images.read(clean.content).pixels == images.read(content).pixels).all()


def test_a_dicom_film_becomes_pixels_and_its_tags_are_read(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian

    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID, header.file_meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    header.PatientID, header.StudyDate, header.StudyInstanceUID = "p10000032", "20160302", "1.2.840.113619.2.55.3.604"
    header.Rows, header.Columns, header.BitsAllocated, header.BitsStored, header.HighBit = 8, 9, 16, 12, 11
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.PixelData = (np.arange(72, dtype=np.uint16) * 50).tobytes()
    header.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    content = (tmp_path / "film.dcm").read_bytes()
    clean = metadata.cleaned(content)
    assert set(identifiers.count(clean.said)) == {"MIMIC-CXR subject", "long number", "DICOM UID"}
    assert clean.content.startswith(metadata.PNG)
    assert (images.read(clean.content).pixels == images.read(content).pixels).all()


def test_what_is_no_image_has_a_reason() -> None:
    with pytest.raises(images.UnreadableImage) as refused:
        metadata.cleaned(b"not a film")
    assert refused.value.reason == "not-an-image"


# Texts -------------------------------------------------------------------------------------------------------------


def test_copied_phrases_are_found_and_boilerplate_is_not() -> None:
    own = "The right internal jugular catheter ends in the upper superior vena cava."
    common = "There is no focal consolidation, pleural effusion or pneumothorax seen today."
    phrases = texts.rare_phrases([own, own, *[f"{common} Case {case}." for case in "abcde"], "too short"])
    prompts = ["RIGHT internal jugular catheter ends, in the upper superior VENA cava", common, "catheter ends", ""]
    assert texts.copied(prompts, phrases).tolist() == [True, False, False, False]
    assert texts.copied(prompts, texts.rare_phrases([])).tolist() == [False] * 4
    seven = "internal jugular catheter ends in the upper"
    assert texts.copied([seven, f"{seven} superior"], phrases).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "prompt"),
    [
        ({}, "Chest radiograph."),
        ({"No Finding": 1}, "Chest radiograph. Findings: no finding."),
        (
            {"Edema": 1, "Pleural Effusion": -1, "Pneumothorax": 0, "Fracture": None},
            "Chest radiograph. Findings: edema, possible pleural effusion. Absent: pneumothorax.",
        ),
    ],
)
def test_a_prompt_from_labels_says_each_state(labels: dict[str, int | None], prompt: str) -> None:
    assert texts.from_labels(records.labels_dict(labels)) == prompt


# Rows --------------------------------------------------------------------------------------------------------------


def stored(**more: Any) -> dict[str, Any]:
    """A row as build writes it."""
    return {
        "image": {"bytes": images.to_png(film(0)), "path": "s50414267.png"},
        "filename": "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.png",
        "prompt": "Mild edema.",
        "labels_dict": records.labels_dict({"Edema": 1}),
        **more,
    }


def test_a_released_row_has_an_opaque_name_and_its_pixels() -> None:
    done = release(stored(id="p10000032", seed=12345678), "f" * 32, OPEN)
    assert list(done.row) == ["image", "filename", "prompt", "labels_dict", "id", "seed"]
    names = (done.row["filename"], done.row["id"], done.row["image"]["path"])
    assert names == ("f" * 32 + ".png", "f" * 32, "f" * 32 + ".png")
    assert (done.row["prompt"], done.row["seed"], done.found, done.lost) == ("Mild edema.", 12345678, {}, None)
    kinds = ("dicom_id", "subject", "study")
    assert done.removed == {f"name: MIMIC-CXR {kind}": 1 for kind in kinds}


def test_a_closed_source_releases_neither_prompt_nor_columns_of_the_films_it_came_from() -> None:
    row = stored(model="org/model", patient="p10000032", quality_scores="the report says…", path="x.png")
    closed = Terms("credentialed", "withhold")
    assert release(row, "f", closed).row["prompt"] is None
    assert list(release(row, "f", closed).row) == ["image", "filename", "prompt", "labels_dict", "model"]
    labels = release(row, "f", Terms("unknown", "from-labels"))
    assert labels.row["prompt"] == "Chest radiograph. Findings: edema."
    assert labels.removed["prompt"] == 1
    assert (Terms("unknown").allowed, closed.allowed, OPEN.allowed) == (False, True, True)
    assert list(features(records.features(verdict=True), closed))[-4:] == [
        "versions",
        "quality",
        "judge",
        "drop_reason",
    ]


def test_identifiers_that_are_left_are_named_by_column() -> None:
    row = stored(prompt="See s50414267 of 2016-03-02.", quality_scores="p10000032", labels_dict={"Edema": "s50414267"})
    assert release(row, "f", OPEN).found == {
        "prompt": ["MIMIC-CXR study", "date"],
        "quality_scores": ["MIMIC-CXR subject"],
        "labels_dict": ["MIMIC-CXR study"],
    }


def test_no_column_leaves_that_is_not_known_and_no_seed_of_a_closed_source() -> None:
    row = stored(seed=7, subject_id=10000032, source_policy="open", patient="a", view="PA", note="x", path="x.png")
    assert list(release(row, "f", OPEN).row) == ["image", "filename", "prompt", "labels_dict", "seed"]
    assert list(release(row, "f", Terms("credentialed", "withhold")).row)[-1] == "labels_dict"


def test_a_model_leaves_without_the_folder_it_lies_in() -> None:
    done = release(stored(model="/scratch/jane/sana + /scratch/jane/lora-3", judge="org/judge"), "f", OPEN)
    assert (done.row["model"], done.row["judge"]) == ("sana + lora-3", "org/judge")
    assert (done.found, done.removed["folder of a model"]) == ({}, 1)


def test_free_text_is_all_that_a_row_says_of_its_film() -> None:
    row = stored(model="org/model", quality_scores="Old film for comparison.", id="a")
    assert free_text(row, OPEN) == "Mild edema.\nOld film for comparison."
    assert free_text(row, Terms("open", "from-labels")) == "Old film for comparison."


def test_a_film_that_cannot_be_read_is_lost_with_its_reason() -> None:
    assert release(stored(image={"bytes": b"", "path": None}), "f", OPEN).lost == "empty"
    assert release(stored(image=None), "f", OPEN).lost == "empty"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("free", "keep"), "source policy must be one of .*'open'.*, got 'free'"),
        (("open", "some"), "prompts must be one of .*'from-labels'.*, got 'some'"),
    ],
)
def test_terms_that_mean_nothing_are_refused(given: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Terms(*given)


def test_names_are_the_same_with_the_secret_only_and_never_twice() -> None:
    first, second, other = namer(b"a"), namer(b"a"), namer(b"b")
    made = [first("x"), first("x"), first("y")]
    assert [second("x"), second("x"), second("y")] == made
    assert len({*made, other("x")}) == 4
    assert all(len(name) == 32 for name in made)


# The whole ---------------------------------------------------------------------------------------------------------


def dataset(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    plan = shards.Plan("build", "test", len(rows), 5, {})
    shards.begin(folder, plan)
    shards.fill(
        folder, plan, lambda span: [rows[i] for i in span], records.features(provenance=False), unit="films", quiet=True
    )
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    def make(films: Sequence[np.ndarray], prompts: Sequence[str] | None = None) -> Path:
        rows = [
            stored(
                image={"bytes": images.to_png(one), "path": None},
                filename=f"{place}.png",
                prompt=prompts[place] if prompts else "Mild edema.",
            )
            for place, one in enumerate(films)
        ]
        return dataset(tmp_path / str(len(list(tmp_path.iterdir()))), rows)

    return make


def comparison(real: ImageSet, **more: Any) -> gate.Comparison:
    return gate.Comparison(real, Means(), "means", gate.Trial(copied=4), num_workers=0, **more)


def test_the_gate_finds_copies_by_row_and_passes_the_rest(made: Callable[..., Path], real: ImageSet) -> None:
    new = [film(seed) for seed in range(315, 321)]
    blurred = np.asarray(Image.fromarray(film(7)).filter(ImageFilter.GaussianBlur(1)))
    report = gate.check(made([*new, film(5), blurred[4:, :-4]]), comparison(real), OPEN)
    assert {finding.kind: finding.rows for finding in report.findings}["copy-pixels"] == (6,)
    assert report.flagged == [6, 7]
    assert report.of_the_set == []
    passed = gate.check(made(new), comparison(real), OPEN)
    assert (passed.findings, passed.rows) == ([], 6)


def test_prompts_are_looked_through(made: Callable[..., Path]) -> None:
    report_text = "Left lower lobe opacity behind the heart has increased since the last film."
    prompts = ["Edema.", "Film of 2016-03-02.", f"Now: {report_text}", "Unlike ___, edema."]
    report = gate.check(made([film(i) for i in range(4)], prompts), None, OPEN, reports=[report_text])
    assert {finding.kind: finding.rows for finding in report.findings} == {
        "date in prompt": (1,),
        "mark of de-identification in prompt": (3,),
        "report": (2,),
        "no-real-films": (),
    }
    assert report.not_looked_for == {"copies of real films": "no real films were given"}


def test_prompts_of_a_closed_source_are_refused_until_the_user_chooses(made: Callable[..., Path]) -> None:
    folder = made([film(0)])
    kept = gate.check(folder, None, Terms("credentialed"))
    assert "prompts of a source that is credentialed" in kept.findings[0].what
    for choice in ("withhold", "from-labels"):
        assert [f.kind for f in gate.check(folder, None, Terms("credentialed", choice)).findings] == ["no-real-films"]


def test_types_that_name_somebody_and_columns_of_patients_are_found(tmp_path: Path) -> None:
    import datasets

    from synthchex.data import records

    kinds = records.features(provenance=False) | {"patient": datasets.Value("string")}
    kinds["quality"] = datasets.ClassLabel(names=["p10000032", "p10000033"])
    rows = [stored(patient="a", quality=place % 2) for place in range(2)]
    folder = tmp_path / "set"
    plan = shards.Plan("build", "test", 2, 5, {})
    shards.begin(folder, plan)
    shards.fill(folder, plan, lambda span: rows, datasets.Features(kinds), unit="films", quiet=True)
    found = [finding.what for finding in gate.check(folder, None, OPEN).findings]
    assert "MIMIC-CXR subject in the types of columns" in found
    closed = gate.check(folder, None, Terms("credentialed", "withhold"))
    assert "films of patients (columns patient) of a source that is credentialed: these stay here" in [
        finding.what for finding in closed.of_the_set
    ]


def test_a_gate_without_power_refuses_what_is_not_open(made: Callable[..., Path], real: ImageSet) -> None:
    blind = {**dict.fromkeys(planted.NEEDED, planted.exact), "jpeg 75": lambda one, rng: film(999)}
    folder = made([film(315)])
    closed = gate.check(folder, comparison(real, changes=blind), Terms("unknown", "withhold"))
    assert closed.findings[0].what == "too few planted copies are caught to rely on the gate: jpeg 75"
    told = gate.check(folder, comparison(real, changes=blind), OPEN)
    assert ([f.kind for f in told.findings], [f.kind for f in told.remarks]) == ([], ["calibration"])


def test_what_is_said_aloud_names_no_row_and_no_place(made: Callable[..., Path], real: ImageSet) -> None:
    report = gate.check(made([film(315), film(5)]), comparison(dataclasses.replace(real, source="secret place")), OPEN)
    lines = "\n".join(gate.lines(report))
    for text in ("brightness", "other patients", "found: films with the pixels of a real film: 1 (rows 1)"):
        assert text in lines
    section = gate.card_section(report, dropped=1, reason=None)
    assert "| crop 5 % | 1.000 | 0.398 to 1.000 |" in section
    assert "1 of 2 films were left out" in section
    assert "Nothing that the gate looks for is left" in section
    overridden = gate.card_section(report, dropped=0, reason="films are of the author")
    assert "was overridden.** Reason given: films are of the author" in overridden
    for text in (section, overridden):
        assert "secret place" not in text
        assert "rows" not in text
    json.dumps(report.as_dict())


def test_several_real_sets_are_one(real: ImageSet) -> None:
    both = gate.together([real.take([0, 1]), real.take([0, 2])])
    assert (len(both), both.patients) == (4, ["0/patient 0", "0/patient 0", "1/patient 0", "1/patient 1"])
    assert (both.fetch(3) == real.fetch(2)).all()
    assert gate.together([real]) is real
    unknown = gate.together([real, dataclasses.replace(real, patients=None)])
    assert unknown.patients is None
    with pytest.raises(ValueError, match="expected at least 1 set of real films, got 0"):
        gate.together([])
