"""The sets that can be imported: how each is read, where it may go, and under what terms it was published."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from synthchex.data.importers import mimic, nih, openi, padchest, plain, rsna, stanford, vindr
from synthchex.data.importers.listing import Given, Listing

POLICIES = ("open", "credentialed", "unknown")


class Importer(NamedTuple):
    """`policy`: open may be shown to anyone, credentialed and unknown stay where they are; `fixed` where the terms are
    known, so that the user cannot state another. `labels`: names of the label tables to choose from.
    """

    read: Callable[[Given], Listing]
    policy: str
    terms: str
    fixed: bool = True
    labels: tuple[str, ...] = ()


PHYSIONET = "PhysioNet Credentialed Health Data License"
STANFORD = "Stanford University Dataset Research Use Agreement"
NOT_KNOWN = "terms not verified"
OWN = "as the user states"

IMPORTERS: dict[str, Importer] = {
    "mimic-cxr-jpg": Importer(mimic.mimic_jpg, "credentialed", PHYSIONET, labels=tuple(mimic.LABELS)),
    "mimic-cxr": Importer(mimic.mimic_dicom, "credentialed", PHYSIONET, labels=tuple(mimic.LABELS)),
    "llava-rad": Importer(mimic.llava_rad, "credentialed", PHYSIONET),
    "chexpert": Importer(stanford.chexpert, "credentialed", STANFORD),
    "chexpert-plus": Importer(
        stanford.chexpert_plus, "credentialed", STANFORD, labels=("impression", "findings", "report")
    ),
    "nih": Importer(nih.chestxray14, "open", "no restrictions on use; acknowledge the NIH Clinical Center"),
    "padchest": Importer(padchest.padchest, "unknown", NOT_KNOWN, fixed=False),
    "vindr-cxr": Importer(vindr.vindr, "credentialed", PHYSIONET),
    "open-i": Importer(openi.openi, "open", "CC BY-NC-ND 4.0"),
    "rsna": Importer(rsna.rsna, "unknown", NOT_KNOWN, fixed=False),
    "chexgenbench": Importer(plain.chexgenbench, "credentialed", "prompts are MIMIC-CXR reports", fixed=False),
    "folder": Importer(plain.plain, "unknown", OWN, fixed=False),
    "table": Importer(plain.plain, "unknown", OWN, fixed=False),
}


def policy(name: str, stated: str | None) -> str:
    """Source policy of a set: its own, or what the user states where its terms leave that open.

    Raises:
        ValueError: a set whose terms are known is stated to be freer than they say.
    """
    importer = IMPORTERS[name]
    if stated is None or stated == importer.policy:
        return importer.policy
    if importer.fixed and stated == "open":
        raise ValueError(
            f"{name} is {importer.policy} ({importer.terms}), got --source-policy {stated}; leave the option out"
        )
    return stated
