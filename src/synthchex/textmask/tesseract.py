"""Texts by the Tesseract program, where it is installed: `tesseract - - tsv`."""

from __future__ import annotations

import csv
import shutil
import subprocess

import numpy as np

from synthchex.data import images
from synthchex.textmask.texts import Text, clipped

PROGRAM = "tesseract"
SPARSE = "11"  # page segmentation: text in no order
CONFIDENCE = 50.0  # of 100


def installed() -> bool:
    """Whether the program is there."""
    return shutil.which(PROGRAM) is not None


class Tesseract:
    """Words that Tesseract reads with some confidence."""

    name = "tesseract"

    def __init__(self) -> None:
        if not installed():
            raise ValueError("expected the program tesseract, got none; install it, or use --detector tophat")

    def detect(self, pixels: np.ndarray) -> list[Text]:
        """Words of one film, uint8 (H, W) or (H, W, 3)."""
        command = [PROGRAM, "-", "-", "--psm", SPARSE, "tsv"]
        done = subprocess.run(command, input=images.to_png(images.to_grey(pixels)), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"tesseract failed: {done.stderr.decode(errors='replace').strip()[-200:]}")
        return words(done.stdout.decode(), pixels.shape[:2])


def words(table: str, shape: tuple[int, int]) -> list[Text]:
    """The words of Tesseract's table of tab-separated values that it is sure of."""
    found = []
    for row in csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        said, sure = (row["text"] or "").strip(), float(row["conf"])
        if any(letter.isalnum() for letter in said) and sure >= CONFIDENCE:
            left, top, width, height = (int(row[name]) for name in ("left", "top", "width", "height"))
            found.append(Text(clipped((left, top, left + width, top + height), shape), sure / 100, said))
    return found
