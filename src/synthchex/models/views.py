"""How a film that is not square becomes the square that a network reads. Knows PIL images; knows no network.

`own` leaves it to the network's processor. `squash` deforms the whole film, `pad` keeps it whole and undeformed on
black, `crop` keeps the centred square; each is one antialiased resize. `chexgenbench` is what that benchmark does:
squash to 299 x 299, then the network's own processor (to 518 for RAD-DINO), so that published tables can be compared
like with like; it blurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

ASPECTS = ("own", "squash", "pad", "crop")
PROTOCOLS: dict[str, int] = {"chexgenbench": 299}


@dataclass(frozen=True)
class View:
    """An aspect policy, or the protocol of a benchmark."""

    aspect: str = "own"
    protocol: str | None = None

    def __post_init__(self) -> None:
        if self.aspect not in ASPECTS:
            raise ValueError(f"aspect must be one of {list(ASPECTS)}, got {self.aspect!r}")
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be None or one of {list(PROTOCOLS)}, got {self.protocol!r}")
        if self.protocol is not None and self.aspect != "own":
            raise ValueError(
                f"expected aspect or protocol, got aspect={self.aspect!r} and protocol={self.protocol!r}; a protocol "
                "settles the aspect, leave it out"
            )

    def __str__(self) -> str:
        return self.protocol or self.aspect

    def picture(self, image: Image.Image, processor: Any) -> Image.Image:
        """The film as it goes into `processor`."""
        if self.protocol is not None:
            return image.resize((PROTOCOLS[self.protocol],) * 2, Image.Resampling.BILINEAR)
        if self.aspect == "crop":
            return centre_square(image)
        if self.aspect == "own":
            return image
        side, resample = input_side(processor), Image.Resampling(getattr(processor, "resample", 3) or 0)
        return image.resize((side, side), resample) if self.aspect == "squash" else padded(image, side, resample)

    def switches(self, processor: Any) -> dict[str, bool]:
        """What `processor` must not do again."""
        if self.aspect not in ("squash", "pad"):
            return {}
        return {name: False for name in ("do_resize", "do_center_crop") if hasattr(processor, name)} | {
            "do_resize": False
        }


def centre_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of a film."""
    side = min(image.size)
    left, top = image.width // 2 - side // 2, image.height // 2 - side // 2
    return image.crop((left, top, left + side, top + side))


def padded(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """The whole film in the middle of a black square."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    square = Image.new(image.mode, (side, side))
    square.paste(image.resize((width, height), resample), ((side - width) // 2, (side - height) // 2))
    return square


def input_side(processor: Any) -> int:
    """Side of the square that leaves a processor.

    Raises:
        ValueError: what leaves it is not a square of fixed side.
    """
    cropped = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = dict(cropped or getattr(processor, "size", None) or {})
    if size.get("height") == size.get("width") and size.get("height"):
        return int(size["height"])
    raise ValueError(
        f"expected a network that reads squares of one size, got one that reads {size or 'any size'}; "
        "use aspect='own' or aspect='crop'"
    )
