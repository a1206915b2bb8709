"""Which pixels are text, from the boxes that hold it. Knows films and boxes, not who found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from synthchex.data import images
from synthchex.textmask.texts import Text, grown

INK = 0.2  # of the highest contrast nearby: what is text, with its antialiasing
MARGIN = 0.12  # of a text's height
FAINT = 4.0  # grey levels, less is grain
WIDEST = 0.45  # of the box's shorter side: stroke that a top-hat must span


def boxes(pixels: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
    """All pixels of the boxes, with a margin of an eighth of their height; bool (H, W)."""
    mask = np.zeros(pixels.shape[:2], bool)
    for text in texts:
        left, top, right, bottom = grown(text.box, margin(text), mask.shape)
        mask[top:bottom, left:right] = True
    return mask


def glyphs(pixels: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
    """The strokes in the boxes, dilated by an eighth of their height; bool (H, W).

    Strokes are what stands out from its surroundings: bright or dark as the detector says, or as the box is brighter or
    darker than what is around it.
    """
    grey = images.to_grey(pixels).astype(np.float32)
    mask = np.zeros(grey.shape, bool)
    for text in texts:
        left, top, right, bottom = grown(text.box, margin(text), mask.shape)
        mask[top:bottom, left:right] |= _ink(grey, text)[top:bottom, left:right]
    return mask


def _ink(grey: np.ndarray, text: Text) -> np.ndarray:
    """Strokes of one text, bool (H, W)."""
    left, top, right, bottom = text.box
    size = int(max(3, WIDEST * min(right - left, bottom - top))) | 1
    around = grown(text.box, 2 * size, grey.shape)
    crop = grey[around[1] : around[3], around[0] : around[2]]
    inner = (slice(top - around[1], bottom - around[1]), slice(left - around[0], right - around[0]))
    bright = _is_bright(crop, inner) if text.bright is None else text.bright
    thin = crop - ndimage.grey_opening(crop, size=size) if bright else ndimage.grey_closing(crop, size=size) - crop
    outside = np.ones(crop.shape, bool)
    outside[inner] = False
    # Of the highest contrast nearby, not of the text: a line may run from black air onto a white abdomen.
    nearby = ndimage.maximum_filter(np.where(outside, 0, thin), size=min(bottom - top, right - left) | 1)
    ink = ~outside & (thin > np.maximum(INK * nearby, FAINT))
    mask = np.zeros(grey.shape, bool)
    size = 2 * margin(text) + 1
    mask[around[1] : around[3], around[0] : around[2]] = ndimage.maximum_filter(ink, size=size)
    return mask


def _is_bright(crop: np.ndarray, inner: tuple[slice, slice]) -> bool:
    """Whether a text is brighter than what is around its box, by the mean of both."""
    around = np.ones(crop.shape, bool)
    around[inner] = False
    return bool(not around.any() or crop[inner].mean() >= np.median(crop[around]))


def margin(text: Text) -> int:
    """Pixels around a text that belong to it, compression or a shadow; none where letters are a few pixels high."""
    return int(MARGIN * (text.box[3] - text.box[1]))


class Sam:
    """Segment Anything: one mask for each box, by transformers' `SamModel` and its PIL processor.

    Source: the pipeline of "This X-Ray Does Not Exist", which asks SAM by boxes alone, takes one mask for each and
    dilates by a box of 9 pixels (5 x 5, twice).
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        from transformers import SamModel, SamProcessor

        from synthchex.models.encoders import loading, pick_device

        with loading(model):
            self.processor: Any = SamProcessor.from_pretrained(model)
            self.model: Any = SamModel.from_pretrained(model).eval().to(pick_device(device))

    def __call__(self, pixels: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
        """Union of the masks, dilated; bool (H, W). Empty without texts, which SAM cannot be asked for."""
        import torch
        from PIL import Image

        if not texts:
            return np.zeros(pixels.shape[:2], bool)
        asked = [[[float(value) for value in text.box] for text in texts]]
        given = self.processor(Image.fromarray(images.to_rgb(pixels)), input_boxes=asked, return_tensors="pt")
        # Boxes leave the processor as float64, which the model's float32 weights do not take.
        given = {name: value.float() if value.dtype == torch.float64 else value for name, value in given.items()}
        on_device = {name: value.to(self.model.device) for name, value in given.items()}
        with torch.inference_mode():
            found = self.model(
                pixel_values=on_device["pixel_values"], input_boxes=on_device["input_boxes"], multimask_output=False
            ).pred_masks
        sizes = given["original_sizes"], given["reshaped_input_sizes"]
        each = self.processor.post_process_masks(found.cpu(), *sizes)[0].numpy()
        union: np.ndarray = each.reshape(-1, *pixels.shape[:2]).any(axis=0)
        return np.asarray(ndimage.binary_dilation(union, np.ones((5, 5)), iterations=2))
