"""The sets that can be imported: how each is read, where it may go, and under what terms it was published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from synthchex.data.importers import mimic, nih, openi, padchest, plain, policies, rsna, stanford, vindr
from synthchex.data.importers.listing import Given, Listing


class Importer(NamedTuple):
    """`policy`: open may be shown to anyone, credentialed and unknown stay where they are; `fixed` where the terms are
    known, so that the user cannot state another. `labels`: names of the label tables to choose from. `takes`: options
    that not every set has a use for.
    """

    read: Callable[[Given], Listing]
    policy: str
    terms: str
    fixed: bool = True
    labels: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


PHYSIONET = "PhysioNet Credentialed Health Data License"
STANFORD = "Stanford University Dataset Research Use Agreement"
NOT_KNOWN = "terms not verified"
OWN = "as the user states"

IMPORTERS: dict[str, Importer] = {
    "mimic-cxr-jpg": Importer(
        mimic.mimic_jpg, "credentialed", PHYSIONET, labels=tuple(mimic.LABELS), takes=("reports",)
    ),
    "mimic-cxr": Importer(mimic.mimic_dicom, "credentialed", PHYSIONET, labels=tuple(mimic.LABELS), takes=("reports",)),
    "llava-rad": Importer(mimic.llava_rad, "credentialed", PHYSIONET, takes=("annotations",)),
    "chexpert": Importer(stanford.chexpert, "credentialed", STANFORD),
    "chexpert-plus": Importer(
        stanford.chexpert_plus, "credentialed", STANFORD, labels=("impression", "findings", "report")
    ),
    "nih": Importer(
        nih.chestxray14, "open", "no restrictions on use; acknowledge the NIH Clinical Center", takes=("unlisted",)
    ),
    "padchest": Importer(padchest.padchest, "unknown", NOT_KNOWN, fixed=False, takes=("unlisted",)),
    "vindr-cxr": Importer(vindr.vindr, "credentialed", PHYSIONET),
    "open-i": Importer(openi.openi, "open", "CC BY-NC-ND 4.0", takes=("unlisted",)),
    "rsna": Importer(rsna.rsna, "unknown", NOT_KNOWN, fixed=False),
    "chexgenbench": Importer(
        plain.chexgenbench, "credentialed", "prompts are MIMIC-CXR reports", fixed=False, takes=("columns",)
    ),
    "folder": Importer(plain.plain, "unknown", OWN, fixed=False, takes=("columns",)),
    "table": Importer(plain.plain, "unknown", OWN, fixed=False, takes=("columns",)),
}


def policy(name: str, source: Path, stated: str | None) -> str:
    """Source policy of a set: its own, or what the user states where its terms leave that open.

    An imported set that is imported once more, as a table, keeps its policy.

    Raises:
        ValueError: a set whose terms are known is stated to be open when they say otherwise.
    """
    own, terms, fixed = IMPORTERS[name].policy, IMPORTERS[name].terms, IMPORTERS[name].fixed
    if IMPORTERS[name].read is plain.plain and policies.has_rows(source):
        own = policies.source_policy(source)
        fixed = own == "credentialed"
    if stated == "open" and fixed and own != "open":
        raise ValueError(f"{name} from {source} is {own} ({terms}), got --source-policy open; leave the option out")
    return stated or own
