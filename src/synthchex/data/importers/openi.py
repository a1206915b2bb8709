"""Open-i, the Indiana University collection (Demner-Fushman et al. 2016): one XML report per patient, and PNG films."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthchex.data.importers import findings
from synthchex.data.importers.listing import Given, Listing, files_below, listed


def openi(given: Given) -> Listing:
    """Films with their reports and the findings that were coded by hand as MeSH headings: positive findings only.

    XXXX stands in the text where de-identification took words away; it stays there.

    Raises:
        ValueError: no report, or one that is no XML of this collection.
    """
    folder = given.tables or given.source
    reports = [path for path in files_below(folder) if path.suffix == ".xml"]
    if not reports:
        raise ValueError(
            f"{given.name} expects the XML reports of NLMCXR_reports.tgz below {folder}, found none; "
            "unpack them and give their folder with --tables"
        )
    rows = [row for path in reports for row in _films(path)]
    without = len(reports) - len({row["study"] for row in rows})
    labels, said = findings.from_lists([row.pop("headings") for row in rows], findings.OPENI, given.unlisted)
    return listed(
        {name: [row[name] for row in rows] for name in rows[0]} if rows else {"id": []},
        labels=labels,
        labels_from="MeSH headings coded by hand",
        findings=said,
        remarks=[f"{without} reports have no film"] if without else [],
        flat=True,
    )


def _films(path: Path) -> list[dict[str, Any]]:
    """One row for each film of a report."""
    try:
        root = ElementTree.parse(path).getroot()
        report = root.find("uId").attrib["id"]  # type: ignore[union-attr]
    except (ElementTree.ParseError, AttributeError, KeyError) as error:
        raise ValueError(f"expected a report of the Open-i collection with a uId, got {path}: {error!r}") from error
    texts = {node.get("Label", ""): (node.text or "").strip() for node in root.iter("AbstractText")}
    headings = [_known((node.text or "").strip()) for node in root.findall("MeSH/major")]
    return [
        {
            "name": f"{film.attrib['id']}.png",
            "id": film.attrib["id"],
            "patient": report,
            "study": report,
            "findings": texts.get("FINDINGS"),
            "impression": texts.get("IMPRESSION"),
            "headings": headings or None,
        }
        for film in root.findall("parentImage")
    ]


def _known(heading: str) -> str:
    """The longest beginning of a heading that has a meaning; its first word where none has."""
    words: Sequence[str] = [word.strip() for word in heading.split("/")]
    for length in (2, 1):
        beginning = "/".join(words[:length])
        if beginning in findings.OPENI.same or beginning in findings.OPENI.part:
            return beginning
    return words[0]
