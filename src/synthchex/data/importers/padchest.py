"""PadChest (Bustos et al. 2020): PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv and its 16-bit PNG films."""

from __future__ import annotations

import ast

from synthchex.data.importers import findings
from synthchex.data.importers.listing import Given, Listing, listed, need, read

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
COLUMNS = ("ImageID", "StudyID", "PatientID", "Projection", "Report", "Labels")


def padchest(given: Given) -> Listing:
    """Films with Spanish reports and positive findings, a part of them by hand, the rest by a network."""
    path = need(given, TABLE, "PADCHEST_chest_x_ray_images_labels_160K.csv")
    frame = read(path, needs=COLUMNS, only=COLUMNS)
    labels, said = findings.from_lists([_names(cell) for cell in frame["Labels"]], findings.PADCHEST, given.unlisted)
    names = frame["ImageID"].tolist()
    return listed(
        {
            "name": names,
            "id": [name.rsplit(".", 1)[0] for name in names],
            "patient": frame["PatientID"],
            "study": frame["StudyID"],
            "view": frame["Projection"],
            "report": frame["Report"],
        },
        labels=labels,
        labels_from=path.name,
        findings=said,
        remarks=["reports are in Spanish"],
        flat=True,
    )


def _names(cell: str) -> list[str] | None:
    """Findings of a cell such as "['pleural effusion', ' normal']"; None where there is no list."""
    if cell.strip().lower() in ("", "nan"):
        return None
    try:
        names = ast.literal_eval(cell)
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"expected a list of findings in a cell of Labels, got {cell[:80]!r}; check {TABLE}"
        ) from error
    return [name.strip().lower() for name in names if name.strip()]
