"""Texts by PP-OCR's detector through transformers, with its own pre- and post-processing: no cv2, no torchvision.

Source: numbers of the published processor of PP-OCRv5 (PaddlePaddle/PP-OCRv5_mobile_det_safetensors). Boxes are
upright rectangles, where the original fits turned ones: burned-in text is upright.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from synthchex.data import images
from synthchex.textmask.texts import Text, clipped

MODEL = "PaddlePaddle/PP-OCRv5_mobile_det_safetensors"
LONGEST, MULTIPLE = 960, 32  # pixels
MEAN, SPREAD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # of RGB; the channels are turned to BGR afterwards
TEXT, BOX = 0.3, 0.6  # least probability of a pixel, and mean of a box
LEAST = 3  # pixels
UNCLIP = 1.5  # the network draws text thinner than it is


class PPOCR:
    """A text detector of the PP-OCR family; it reads nothing."""

    name = "ppocr"

    def __init__(self, model: str = MODEL, *, device: str | None = None) -> None:
        from transformers import AutoModelForObjectDetection

        from synthchex.models.encoders import loading, pick_device

        with loading(model):
            loaded = AutoModelForObjectDetection.from_pretrained(model)
        self.model: Any = loaded.eval().to(pick_device(device))

    def detect(self, pixels: np.ndarray) -> list[Text]:
        """Texts of one film, uint8 (H, W) or (H, W, 3)."""
        import torch

        with torch.inference_mode():
            inputs = torch.from_numpy(prepare(pixels)).to(self.model.device, self.model.dtype)
            found = self.model(pixel_values=inputs).last_hidden_state
        return regions(found[0, 0].float().cpu().numpy(), pixels.shape[:2])


def prepare(pixels: np.ndarray) -> np.ndarray:
    """A film as the network takes it, float32 (1, 3, H', W'): at most LONGEST a side, sides multiples of 32."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (width, height)]
    picture = Image.fromarray(images.to_rgb(pixels)).resize((size[0], size[1]), Image.Resampling.BILINEAR)
    values = (np.asarray(picture, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(SPREAD, np.float32)
    return np.ascontiguousarray(values[:, :, ::-1].transpose(2, 0, 1)[None])


def regions(probability: np.ndarray, shape: tuple[int, int]) -> list[Text]:
    """Boxes of connected pixels that are probably text, in pixels of a film.

    Args:
        probability: of text, (h, w).
        shape: of the film, (H, W).
    """
    numbers, _ = ndimage.label(probability > TEXT, np.ones((3, 3)))
    down, across = shape[0] / probability.shape[0], shape[1] / probability.shape[1]
    found = []
    for place in ndimage.find_objects(numbers):
        height, width = (part.stop - part.start for part in place)
        score = float(probability[place].mean())
        if min(height, width) < LEAST or score < BOX:
            continue
        more = UNCLIP * height * width / (2 * (height + width))  # area over perimeter, as in DB
        left, top = place[1].start - more, place[0].start - more
        box = left * across, top * down, (left + width + 2 * more) * across, (top + height + 2 * more) * down
        found.append(Text(clipped(box, shape), score))
    return found
