"""NIH ChestX-ray14 (Wang et al. 2017): Data_Entry_2017.csv, train_val_list.txt, test_list.txt, images_001..012."""

from __future__ import annotations

from synthchex.data.importers import findings
from synthchex.data.importers.listing import Given, Listing, find, listed, need, read

SPLITS = (("train_val", "train_val_list.txt"), ("test", "test_list.txt"))


def chestxray14(given: Given) -> Listing:
    """Films with findings mined from reports, which are not published: positive findings only, no text.

    `No Finding` means none of the set's 14 findings; a fracture or a device may still be there.
    """
    path = need(given, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    frame = read(path, needs=("Image Index", "Finding Labels", "Patient ID", "View Position"))
    lists = [[name.strip() for name in cell.split("|")] if cell.strip() else None for cell in frame["Finding Labels"]]
    labels, said = findings.from_lists(lists, findings.NIH, given.unlisted)
    names = frame["Image Index"].tolist()
    splits: dict[str, str] = {}
    remarks = []
    for split, file in SPLITS:
        found = find(given, file)
        if found is None:
            remarks.append(f"{file} is not there: its films have no split")
        else:
            splits |= dict.fromkeys(found.read_text().split(), split)
    return listed(
        {
            "name": names,
            "id": [name.rsplit(".", 1)[0] for name in names],
            "patient": frame["Patient ID"],
            "view": frame["View Position"],
            "split": [splits.get(name) for name in names],
        },
        labels=labels,
        labels_from=path.name,
        findings=said,
        remarks=remarks,
        flat=True,
    )
