"""Text on films: detectors, segmenters and inpainters, each alone and together, on phantoms that know their text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex import phantom, textmask
from synthchex.textmask import fill, letters, lines, masks, ppocr, tesseract, texts, tophat
from synthchex.textmask.texts import Text

COUNT = {64: 60, 256: 16}


def centre_in(inner: texts.Box, outer: texts.Box) -> bool:
    """Whether the centre of one box lies in the other."""
    across, down = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= across < outer[2] and outer[1] <= down < outer[3]


@pytest.fixture(scope="module", params=sorted(COUNT))
def films(request: pytest.FixtureRequest) -> tuple[phantom.Phantoms, np.ndarray, list[list[Text]]]:
    """Marked phantoms, the same without marks, and what is found on the marked ones."""
    size = request.param
    marked = phantom.make(COUNT[size], size=size, seed=3, markers=True)
    plain = phantom.make(COUNT[size], size=size, seed=3).images
    return marked, plain, [tophat.TopHat().detect(film) for film in marked.images]


# Letters -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["A", "L", "R", "P", "e"])
def test_a_drawn_letter_is_read(letter: str) -> None:
    picture = Image.new("L", (80, 80))
    ImageDraw.Draw(picture).text((20, 10), letter, fill=255, font=ImageFont.load_default(40))
    strokes = np.asarray(picture.crop(picture.getbbox()), np.float32) / 255
    [(read, score)] = letters.read([strokes])
    assert read == letter
    assert score > 0.85
    assert letters.read([]) == []


def test_grain_is_no_letter() -> None:
    rng = np.random.default_rng(0)
    read = letters.read([rng.random((30, 20), np.float32) for _ in range(50)])
    assert max(score for _, score in read) < lines.CLEAR


# The weight-free detector --------------------------------------------------------------------------------------------


def test_nearly_all_text_is_found(films: tuple[phantom.Phantoms, np.ndarray, list[list[Text]]]) -> None:
    marked, _, found = films
    hits = [
        any(centre_in(box, text.box) for text in texts_)
        for boxes, texts_ in zip(marked.boxes, found, strict=True)
        for box in boxes
    ]
    assert np.mean(hits) >= 0.95


def test_nearly_all_that_is_found_is_text(films: tuple[phantom.Phantoms, np.ndarray, list[list[Text]]]) -> None:
    marked, _, found = films
    right = [
        any(centre_in(text.box, box) or centre_in(box, text.box) for box in boxes)
        for boxes, texts_ in zip(marked.boxes, found, strict=True)
        for text in texts_
    ]
    assert np.mean(right) >= 0.9


def test_films_without_text_have_none(films: tuple[phantom.Phantoms, np.ndarray, list[list[Text]]]) -> None:
    _, plain, _ = films
    assert np.mean([bool(tophat.TopHat().detect(film)) for film in plain[:20]]) <= 0.1


def test_black_text_and_colour_films_are_read_too() -> None:
    film = np.full((400, 500), 200, np.uint8)
    picture = Image.fromarray(film)
    ImageDraw.Draw(picture).text((40, 300), "PORTABLE", fill=10, font=ImageFont.load_default(30))
    [text] = tophat.TopHat().detect(np.asarray(picture.convert("RGB")))
    assert str(text.says).upper() == "PORTABLE"
    assert text.bright is False
    assert centre_in((40, 300, 190, 330), text.box)


def test_large_films_are_read_at_the_detectors_own_scale() -> None:
    film = np.full((1500, 2600), 90, np.uint8)
    picture = Image.fromarray(film)
    ImageDraw.Draw(picture).text((2300, 100), "ERECT", fill=255, font=ImageFont.load_default(60))
    [text] = tophat.TopHat().detect(np.asarray(picture))
    assert str(text.says).upper() == "ERECT"
    assert abs(text.box[0] - 2300) < 12


# Side markers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "says", "side"),
    [
        ((5, 5, 10, 12), "L", True),
        ((5, 5, 10, 12), "r", True),
        ((5, 5, 10, 12), "P", False),
        ((5, 5, 40, 12), "LR", False),
        ((5, 5, 10, 12), None, False),
        ((48, 48, 52, 54), "L", False),
    ],
)
def test_a_side_marker_is_one_l_or_r_near_the_border(box: texts.Box, says: str | None, side: bool) -> None:
    assert texts.is_side_marker(Text(box, 1.0, says), (100, 100)) is side


def test_boxes_stay_within_the_film_and_are_never_empty() -> None:
    assert texts.clipped((-3.5, 2.2, 120, 2.3), (50, 100)) == (0, 2, 100, 3)
    assert texts.clipped((200, 200, 210, 210), (50, 100)) == (99, 49, 100, 50)


# PP-OCR --------------------------------------------------------------------------------------------------------------


def test_regions_of_a_probability_map_by_hand() -> None:
    likely = np.zeros((40, 80), np.float32)
    likely[10:16, 20:40] = 0.9
    likely[30:32, 5:7] = 0.9  # too small
    likely[25:35, 60:70] = 0.4  # a pixel is text, the box is not sure
    [text] = ppocr.regions(likely, (80, 160))
    # 6 x 20: grown by 1.5 * 120 / 52 = 3.46 a side, then twice as large.
    assert text.box == (33, 13, 87, 39)
    assert text.score == pytest.approx(0.9)
    assert text.says is None


def test_preparing_is_the_published_order_of_channels_and_sides() -> None:
    film = np.zeros((120, 1200, 3), np.uint8)
    film[:, :, 0] = 255
    given = ppocr.prepare(film)
    assert given.shape == (1, 3, 96, 960)
    np.testing.assert_allclose(given[0, 2], (1 - 0.406) / 0.225, rtol=1e-5)
    np.testing.assert_allclose(given[0, 0], -0.485 / 0.229, rtol=1e-5)


def test_a_saved_detector_of_the_real_class_loads_and_runs(tmp_path: Path) -> None:
    from transformers import PPOCRV5MobileDetConfig, PPOCRV5MobileDetForObjectDetection

    torch.manual_seed(0)
    PPOCRV5MobileDetForObjectDetection(PPOCRV5MobileDetConfig()).save_pretrained(tmp_path)
    detector = textmask.load_detector("ppocr", str(tmp_path), device="cpu")
    found = detector.detect(np.random.default_rng(0).integers(0, 255, (64, 96)).astype(np.uint8))
    assert all(isinstance(text, Text) and text.box[2] <= 96 and text.box[3] <= 64 for text in found)


# Tesseract -----------------------------------------------------------------------------------------------------------


def test_words_of_tesseracts_table() -> None:
    head = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"
    rows = ["5\t1\t1\t1\t1\t1\t10\t20\t30\t8\t91.5\tERECT", "5\t1\t1\t1\t1\t2\t50\t20\t9\t8\t20\tAP"]
    rows += [
        "5\t1\t1\t1\t1\t3\t60\t20\t9\t8\t96\t|",
        "1\t1\t0\t0\t0\t0\t0\t0\t100\t100\t-1\t",
        '5\t1\t1\t1\t1\t4\t1\t2\t3\t4\t80\t"L',
    ]
    found = tesseract.words("\n".join([head, *rows]) + "\n", (100, 100))
    assert found == [Text((10, 20, 40, 28), 0.915, "ERECT"), Text((1, 2, 4, 6), 0.8, '"L')]


@pytest.mark.skipif(tesseract.installed(), reason="tesseract is installed")
def test_tesseract_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ValueError, match="expected the program tesseract, got none"):
        textmask.load_detector("tesseract")


@pytest.mark.skipif(not tesseract.installed(), reason="tesseract is not installed")
def test_tesseract_reads_a_word() -> None:
    picture = Image.new("L", (600, 400), 60)
    ImageDraw.Draw(picture).text((100, 100), "PORTABLE", fill=255, font=ImageFont.load_default(48))
    assert "PORTABLE" in [text.says for text in tesseract.Tesseract().detect(np.asarray(picture))]


# Segmenters ----------------------------------------------------------------------------------------------------------


def test_box_masks_are_the_boxes_with_their_margin() -> None:
    mask = masks.boxes(np.zeros((50, 80), np.uint8), [Text((10, 20, 40, 37), 1.0)])
    assert mask.sum() == (30 + 4) * (17 + 4)
    assert mask[18, 8]
    assert not mask[17, 8]


@pytest.mark.parametrize("bright", [True, False, None])
def test_glyph_masks_cover_the_strokes_and_little_else(bright: bool | None) -> None:
    ink = 20 if bright is False else 250
    slope = np.tile(np.linspace(60, 200, 300), (120, 1)).astype(np.uint8)
    picture = Image.fromarray(slope)
    ImageDraw.Draw(picture).text((40, 40), "SITTING", fill=ink, font=ImageFont.load_default(36))
    film = np.asarray(picture)
    box = ImageDraw.Draw(picture).textbbox((40, 40), "SITTING", font=ImageFont.load_default(36))
    text = Text(texts.clipped(box, film.shape), 1.0, bright=bright)
    mask, changed = masks.glyphs(film, [text]), film != slope
    assert mask[changed].mean() >= 0.99
    assert mask.sum() <= masks.boxes(film, [text]).sum()


def test_sam_of_the_real_class_is_asked_by_boxes(tmp_path: Path) -> None:
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamProcessor,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_attention_heads": 2}
    vision = SamVisionConfig(
        **small,
        output_channels=32,
        num_pos_feats=16,
        num_hidden_layers=1,
        image_size=64,
        patch_size=16,
        mlp_dim=32,
        global_attn_indexes=[0],
        window_size=2,
    )
    prompts = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(**small, mlp_dim=32, num_hidden_layers=1, iou_head_hidden_dim=32)
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(tmp_path)
    sizes = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    SamProcessor(SamImageProcessorPil(**sizes, mask_size={"longest_edge": 16})).save_pretrained(tmp_path)
    segment = textmask.load_segmenter("sam", str(tmp_path), device="cpu")
    film = phantom.make(1, size=64).images[0]
    mask = segment(film, [Text((5, 5, 20, 12), 1.0), Text((30, 40, 60, 50), 1.0)])
    assert (mask.shape, mask.dtype) == ((64, 64), np.dtype(bool))
    assert not segment(film, []).any(), "no boxes, no question"


# Inpainters ----------------------------------------------------------------------------------------------------------


def test_a_hole_in_a_plane_is_filled_by_the_plane() -> None:
    plane = (50 + 2 * np.arange(40)[:, None] + 1 * np.arange(60)[None]).astype(np.uint8)
    mask = np.zeros(plane.shape, bool)
    mask[10:20, 15:40] = mask[30, 5] = True
    spoiled = np.where(mask, 255, plane).astype(np.uint8)
    np.testing.assert_array_equal(fill.biharmonic(spoiled, mask, 0), plane)
    colour = np.stack([spoiled, spoiled, 255 - spoiled], 2)
    np.testing.assert_array_equal(fill.biharmonic(colour, mask, 0)[:, :, 0], plane)


def test_a_hole_gets_the_grain_around_it() -> None:
    film = np.clip(np.random.default_rng(0).normal(120, 9, (80, 80)), 0, 255).astype(np.uint8)
    mask = np.zeros(film.shape, bool)
    mask[30:50, 30:50] = True
    assert (
        np.diff(fill.biharmonic(film, mask, 0).astype(float))[30:50, 32:48].std()
        > 0.6 * np.diff(film.astype(float)).std()
    )
    assert not np.array_equal(fill.biharmonic(film, mask, 0), fill.biharmonic(film, mask, 1))


def test_nothing_can_be_filled_from_nothing() -> None:
    with pytest.raises(ValueError, match="mask of the whole film"):
        fill.biharmonic(np.zeros((8, 8), np.uint8), np.ones((8, 8), bool), 0)


def test_a_pixel_that_changed_outside_the_mask_is_an_error() -> None:
    film, mask = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    with pytest.raises(AssertionError, match="outside the mask"):
        fill._checked(film, film + np.uint8(1), mask)


def inpainting_pipeline(folder: Path) -> Path:
    """A pipeline of the class of Stable Diffusion 2 inpainting, whose UNet has 9 channels: latents, mask, film."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel

    plain = StableDiffusionPipeline.from_pretrained(tiny.stable_diffusion(folder))
    unet = UNet2DConditionModel.from_config({**plain.unet.config, "in_channels": 9})
    parts = {**plain.components, "unet": unet}
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(folder / "inpainting")
    return folder / "inpainting"


@pytest.mark.parametrize("make", [tiny.stable_diffusion, inpainting_pipeline])
def test_an_inpainting_pipeline_changes_only_the_mask(make: Callable[[Path], Path], tmp_path: Path) -> None:
    inpaint = fill.Diffusion(str(make(tmp_path / "model")), steps=2, size=32, device="cpu")
    film = phantom.make(1, size=64, markers=True).images[0]
    mask = np.zeros(film.shape, bool)
    mask[4:16, 4:16] = True
    one = inpaint(film, mask, 5)
    np.testing.assert_array_equal(one, inpaint(film, mask, 5))
    np.testing.assert_array_equal(one[~mask], film[~mask])
    assert (one[mask] != film[mask]).mean() > 0.5
    assert not np.array_equal(one, inpaint(film, mask, 6))


def test_prompt_and_steps_of_the_published_pipeline_are_defaults(tmp_path: Path) -> None:
    loaded = textmask.load_inpainter("diffusion", str(tiny.stable_diffusion(tmp_path / "model")), device="cpu")
    assert isinstance(loaded, fill.Diffusion)
    assert loaded.call == {"prompt": "No text, clean background", "num_inference_steps": 50, "guidance_scale": 7.5}


@pytest.mark.parametrize("load", [textmask.load_detector, textmask.load_segmenter, textmask.load_inpainter])
def test_unknown_tools_are_refused(load: object) -> None:
    with pytest.raises(ValueError, match=r"among .* got 'magic'"):
        load("magic")  # type: ignore[operator]


# Together ------------------------------------------------------------------------------------------------------------


def tools(**changes: object) -> textmask.Tools:
    """The weight-free tools."""
    return textmask.Tools(tophat.TopHat(), masks.glyphs, fill.biharmonic, **changes)  # type: ignore[arg-type]


def test_masked_regions_are_nearer_to_the_film_without_text(
    films: tuple[phantom.Phantoms, np.ndarray, list[list[Text]]],
) -> None:
    marked, plain, _ = films
    before, after = 0.0, 0.0
    for film, truth in zip(marked.images[:10], plain, strict=False):
        done = textmask.clean(film, tools(remove_side_markers=True), 0)
        if done.mask is None:
            continue
        np.testing.assert_array_equal(done.pixels[~done.mask], film[~done.mask])
        before += float((film.astype(float) - truth)[done.mask].__pow__(2).sum())
        after += float((done.pixels.astype(float) - truth)[done.mask].__pow__(2).sum())
    assert before >= 5 * after


def test_a_side_marker_stays_unless_asked() -> None:
    film = phantom.make(1, size=256, seed=3, markers=True).images[0]
    kept = textmask.clean(film, tools(), 0)
    assert (kept.reason, kept.mask) == ("kept-side-marker", None)
    assert kept.pixels is film
    gone = textmask.clean(film, tools(remove_side_markers=True), 0)
    assert gone.reason == "removed"
    assert gone.left == []


def test_text_that_is_still_there_is_said_so() -> None:
    film = phantom.make(1, size=256, seed=3, markers=True).images[0]
    lazy = textmask.Tools(tophat.TopHat(), masks.glyphs, lambda pixels, mask, seed: pixels.copy(), True)
    done = textmask.clean(film, lazy, 0)
    assert done.reason == "text-left"
    assert '"fate": "left"' in done.boxes()
    blind = textmask.Tools(tophat.TopHat(), lambda pixels, found: np.zeros(pixels.shape, bool), fill.biharmonic, True)
    assert textmask.clean(film, blind, 0).reason == "text-left"
