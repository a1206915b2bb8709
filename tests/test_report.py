"""The report: what it shows, what it leaves out, and that nothing in it can reach the network or run unasked."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import example_report

from synthchex.report import (
    Neighbours,
    Ranked,
    ReportImages,
    canvas,
    plots,
    spread_rows,
    tables,
    terminal_table,
    text,
    write_report,
)
from synthchex.report.blocks import Cell, Column, Rows, Section, Table, render
from synthchex.report.blocks import Page as Sheet
from synthchex.report.page import compose

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}$x_$"
PLOTS = {"alignment", "verdicts", "feature_map", "faithfulness__xrv-pc"} | {
    f"{name}__{encoder}"
    for name in ("kid_per_label", "kid_gap", "precision_recall", "density_coverage")
    for encoder in ("rad-dino", "inception")
}
SECTIONS = {
    "overall",
    "labels",
    "distributions",
    "alignment",
    "faithfulness",
    "ranked",
    "neighbours",
    "films",
    "counts",
}
SECTIONS |= {"methods", "provenance"}
VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use", "rect", "image"}
NO_IMAGES = ReportImages()


@pytest.fixture(scope="module")
def images() -> ReportImages:
    """Small films in every place."""
    return example_report.images(60, size=64)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, images: ReportImages) -> Path:
    """A page with everything, written once for the tests that only look."""
    return write_report(example_report.results(), tmp_path_factory.mktemp("full"), images=images)


@pytest.fixture(scope="module")
def page(full: Path) -> Page:
    """The same, read."""
    return Page(full.read_text(encoding="utf-8"))


@pytest.fixture
def results() -> dict[str, Any]:
    """Results with everything."""
    return example_report.results()


@pytest.fixture
def minimal() -> dict[str, Any]:
    """Two folders, one metric."""
    return {
        "schema_version": 2,
        "title": "Two folders",
        "domain": "radiographs",
        "sets": {"real": {"source": "a", "n": 120}, "synthetic": {"source": "b", "n": 110}},
        "overall": [example_report.metric("phantom", "kid", "KID", 0.0123, "lower", n_floor=None)],
    }


class Page(HTMLParser):
    """Tags with their attributes, visible text, tables outside a scroll box; tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.classes: list[str] = []
        self.loose_tables = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.loose_tables += "scroll" not in self.classes
        if tag not in VOID:
            self.open.append(tag)
            self.classes.append(dict(attrs).get("class") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
            self.classes.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "svg", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def rendered(results: dict[str, Any], images: ReportImages = NO_IMAGES) -> Page:
    """The page without its plots."""
    return Page(render(compose(results, images, {})))


def cells(table: Table, row: str, group: int = 0) -> dict[str, str | Cell]:
    """The cells of a row by column title."""
    found = next(line for line in table.groups[group].rows if line[0] == row)
    return dict(zip([column.title for column in table.columns], found, strict=True))


def test_full_page_has_every_section_and_every_plot(full: Path, page: Page) -> None:
    assert set(page.attributes("id")) >= SECTIONS | {f"figure-{plot}" for plot in PLOTS}
    names = {f"{plot}.{end}" for plot in PLOTS for end in ("png", "svg", "pdf")}
    assert {path.name for path in (full.parent / "plots").iterdir()} == names
    assert "Phantom domain" not in page.text
    assert "24 of 30" not in page.text
    assert list(full.parent.glob(".*")) == []


def test_phantom_pages_and_plots_say_that_they_are(results: dict[str, Any], images: ReportImages) -> None:
    page = rendered(results | {"domain": "phantom"})
    assert "Phantom domain: a simulation; scores are not comparable with real radiographs." in page.text
    drawn = plots.alignment(images.matched, None, None, "phantom")
    assert drawn is not None
    assert "phantom domain: a simulation" in drawn.svg


def test_page_loads_nothing_and_runs_its_own_script_only(full: Path, page: Page) -> None:
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/webp;base64,") for source in page.attributes("src"))
    assert all(link.startswith(("#", "https://arxiv.org/")) for link in page.attributes("href"))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.attributes("xlink:href"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    text = full.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML", script)


def test_page_with_nine_films_per_label_stays_small(full: Path, page: Page) -> None:
    assert len(page.attributes("src")) > 14 * 9
    assert full.stat().st_size < 6_000_000


def test_ids_are_unique_and_internal_links_resolve(full: Path, page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    links = page.attributes("href") + page.attributes("xlink:href")
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert set(page.attributes("aria-labelledby")) | set(page.attributes("data-copy")) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", full.read_text(encoding="utf-8"))) <= set(ids)


def test_images_tables_and_plots_are_described(page: Page) -> None:
    alts = [attrs.get("alt") or "" for tag, attrs in page.tags if tag == "img"]
    assert all(alts)
    assert "Pneumothorax, worst, film 3" in alts
    assert all(attrs.get("scope") in {"row", "col", "rowgroup"} for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") == "img")


def test_nothing_is_wider_than_a_phone_but_tables_in_their_own_box(full: Path, page: Page) -> None:
    assert page.loose_tables == 0
    assert not [attrs for tag, attrs in page.tags if tag not in {"image", "rect", "svg"} and "width" in attrs]
    style = full.read_text(encoding="utf-8").split("</style>")[0]
    for rule in (".scroll { overflow-x: auto", "overflow-wrap: anywhere", ".plot svg { display: block; width: 100%"):
        assert rule in style
    assert "white-space: pre-wrap" in style
    fixed = re.findall(r"(?<!max-)(?:min-)?width: ([\d.]+)rem", style)
    assert max(map(float, fixed)) * 16 < 360


def test_inline_plots_follow_dark_mode(full: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", full.read_text(encoding="utf-8"), re.S)
    assert len(drawings) == len(PLOTS)
    for drawing in drawings:
        assert not [colour for colour in canvas.LIGHT.values() if colour in drawing]
    assert set(canvas.DARK) == set(canvas.LIGHT)
    assert len(set(canvas.LIGHT.values())) == len(canvas.LIGHT)


def test_every_number_is_formatted_and_missing_ones_are_dashes(page: Page) -> None:
    assert not re.findall(r"\d\.\d{6,}", re.sub(r"versions.*", "", page.text))
    assert not re.findall(r"\b(nan|None|inf|Undefined)\b", page.text)
    for words in ("54.2", "0.01635", "0.01420 to 0.01840", "−0.00021", "22 min 22 s", "2026-01-02 03:04 UTC"):
        assert words in page.text
    assert text.ABSENT in page.text


def test_headline_groups_by_encoder_and_takes_the_difference_at_the_size_of_the_floor(results: dict[str, Any]) -> None:
    results["overall"][1] |= {"value": 0.5, "floor": 0.1, "matched": 0.7}
    table = tables.overall(results)
    titles = [
        "rad-dino (768 features)",
        "inception (2,048 features)",
        "without a network",
        "medsiglip (1,152 features)",
    ]
    assert [group.title for group in table.groups] == titles
    row = cells(table, "KID")
    assert (row["Synthetic"], row["Real vs real"], row["Difference"]) == ("0.500", "0.100", "+0.600")
    row = cells(table, "FID")
    assert (row["Difference"], row["Synthetic, same n"]) == ("+42.8", text.ABSENT)
    assert table.groups[2].rows[1][:2] == ["FRD", Cell("not measured", width=5)]


def test_labels_are_compared_under_the_right_titles() -> None:
    matched = {"n": 40, "kid": 0.2, "kid_floor": 0.05, "kid_gap": 0.15, "kid_gap_interval": [0.1, 0.2], "fid": 9.0}
    row = {"label": "Edema", "state": "ok", "matched": matched | {"fid_floor": 6.0, "fid_ratio": 1.5}, "flagged": True}
    row |= {"p_value": 0.0004, "p_adjusted": 0.0056, "distance": 0.3, "note": "too few draws; thinned"}
    row |= {"conditional": {"to_same": 0.1, "to_other": 0.4, "gap": 0.3, "ceiling": 0.6, "share": 0.5}}
    policy = {"adjustment": "holm", "alpha": 0.05, "permutations": 999, "draws": 20}
    other = {"label": "Fracture", "state": "ok", "flagged": False, "note": "too few draws"}
    table = tables.compared([row, other], "rad-dino", policy)
    expected = {"Label": "Edema", "Gap": Cell("+0.150", "0.100 to 0.200"), "p adjusted": "0.006", "Verdict": "differs"}
    expected |= {"p": "<0.001", "KID": "0.200", "KID, real vs real": "0.050", "FID": "9.000", "FID / floor": "1.50"}
    expected |= {"FID, real vs real": "6.000", "n each": "40", "KID, all films": Cell("0.300"), "Note": "thinned"}
    assert cells(table, "Edema") == expected
    assert "999 permutations" in table.note
    assert "by Holm; differs: adjusted p below 0.05. Too few draws." in table.note
    assert cells(table, "Fracture")["Verdict"] == "no"
    expected = {
        "Label": "Edema",
        "KID to real with label": "0.100",
        "KID to real without": "0.400",
        "Gap": Cell("+0.300"),
    }
    expected |= {"Gap of real films": "0.600", "Share": "0.50"}
    assert cells(tables.conditional([row], ""), "Edema") == expected


def test_label_with_too_few_images_shows_its_state_and_no_number(results: dict[str, Any]) -> None:
    row = next(row for row in results["labels"] if row["label"] == "Fracture")
    row |= {"kid": 77.77, "matched": {"kid_gap": 77.77}, "p_adjusted": 77.77, "conditional": {"gap": 77.77}}
    page = rendered(results)
    assert "77.7" not in page.text
    assert "Fracture 48 / 40 insufficient n" in page.text
    told = terminal_table(results)
    assert re.search(r"Fracture +48 / 40 +insufficient n\n", told)
    assert "77.7" not in told


def test_faithfulness_names_the_missing_heads_and_the_checks(page: Page, results: dict[str, Any]) -> None:
    for words in (
        "xrv-pc was not trained on the data sets that generators of chest radiographs are trained on.",
        "It has no head for No Finding, Pleural Other, Support Devices.",
        "Co-occurrence of 11 findings, distance of synthetic to real films: 0.091; real to real: 0.021.",
        "Pleural Other no head in this classifier",
        "Mean of 9 labels 0.801",
        "Synthetic 660 0.412 18.4 %",
        "Flagged: above 0.500.",
    ):
        assert words in page.text
    results["faithfulness"][0] |= {"independent": False, "notes": ["no real labels"]}
    changed = rendered(results)
    assert "xrv-pc was trained on" in changed.text
    assert "no real labels" in changed.text


def test_counts_of_all_that_was_skipped_or_joined_are_shown(page: Page) -> None:
    for words in ("not-an-image: 1; truncated: 3", "16-bit film scaled to 8 bits: 31", "only in the real set 416"):
        assert words in page.text
    assert "Paired by prompt." in page.text
    assert "real: not mentioned" in page.text


def test_methods_citations_and_command_can_be_copied(page: Page) -> None:
    assert set(page.attributes("data-copy")) == {"methods-text", "citations", "command"}
    assert "@inproceedings{binkowski2018demystifying," in page.text
    hidden = [attrs for tag, attrs in page.tags if tag == "button"]
    assert all("hidden" in attrs for attrs in hidden)  # shown by the script, so never dead without it


def test_withheld_films_are_replaced_by_the_reason(results: dict[str, Any], images: ReportImages) -> None:
    bare = dataclasses.replace(
        images, real=None, neighbours=(), real_marks={}, withheld="Real films stay where they are."
    )
    page = rendered(results, bare)
    assert page.text.count("Real films stay where they are.") == 2
    assert "neighbours" in page.attributes("id")
    assert not [attrs for tag, attrs in page.tags if attrs.get("class") == "reference"]


def test_more_films_than_are_shown_are_counted(images: ReportImages) -> None:
    page = rendered({}, ReportImages(kept=[images.kept[0]] * 30 if images.kept else []))
    assert "Synthetic images, kept 24 of 30" in page.text


def test_minimal_results_leave_sections_out(minimal: dict[str, Any], tmp_path: Path) -> None:
    page = Page(write_report(minimal, tmp_path).read_text(encoding="utf-8"))
    assert {section for section in SECTIONS if section in page.attributes("id")} == {"overall", "counts"}
    for absent in ("Phantom", "warning", "Stage", "dropped", "Judge", "Label", "Interval"):
        assert absent not in page.text
    assert "No real-vs-real floor was measured." in page.text
    assert "not counted" in page.text  # skipped files: unknown is not none
    assert list((tmp_path / "plots").iterdir()) == []


@pytest.mark.parametrize("results", [{}, {"overall": None, "labels": [], "sets": None, "verdicts": None, "stages": []}])
def test_results_without_anything_still_render(results: dict[str, Any]) -> None:
    assert "section" not in [tag for tag, _ in rendered(results).tags]
    assert terminal_table(results) == "Evaluation\n"


def test_each_absent_key_is_survived(results: dict[str, Any], tmp_path: Path) -> None:
    for key in results:
        rest = {name: value for name, value in results.items() if name != key}
        assert rendered(rest).text
        terminal_table(rest)
    bare = {"overall": [{"metric": "kid"}], "labels": [{"label": "Edema"}], "stages": [{"name": "kept"}]}
    bare |= {"faithfulness": [{"labels": [{"label": "Edema"}]}], "encoders": [{"name": "x"}], "join": {}}
    bare |= {"sets": {"real": {"n": 3}}, "verdicts": {"quality": {}}}  # type: ignore[dict-item]
    write_report(bare, tmp_path)


def test_hostile_strings_are_escaped_everywhere(results: dict[str, Any], images: ReportImages, tmp_path: Path) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, str):
            return HOSTILE
        if isinstance(value, dict):
            return {key: poisoned(item) for key, item in value.items()}
        return [poisoned(item) for item in value] if isinstance(value, list) else value

    results["labels"] = results["labels"][:14]
    bad = poisoned(copy.deepcopy(results)) | {"domain": "phantom"}
    for row in bad["labels"] + bad["overall"] + bad["faithfulness"][0]["labels"]:
        row["state"] = "ok"
    bad["labels"][3]["state"] = HOSTILE
    bad["overall"][0]["metric"], bad["overall"][1]["metric"] = "recall", "precision"
    bad["verdicts"]["drop_reasons"] = {HOSTILE: 500}
    bad["verdicts"]["quality"] = {HOSTILE: 5, "High Quality": 3}
    bad["sets"]["real"]["skipped"] = bad["sets"]["real"]["notes"] = {HOSTILE: 2}
    bad["hashes"] = bad["versions"] = {HOSTILE: HOSTILE}
    named = dataclasses.replace(images, ranked=[Ranked(HOSTILE, *images.ranked[0][1:])], ranked_by=HOSTILE)
    named = dataclasses.replace(named, neighbours_by=HOSTILE, map_of=HOSTILE, aligned_by=HOSTILE, withheld=HOSTILE)
    path = write_report(bad, tmp_path, images=named)
    page, written = Page(path.read_text(encoding="utf-8")), path.read_text(encoding="utf-8")
    assert "<img src=x" not in written
    assert html.escape("<img src=x") in written
    assert "{{ 7*7 }}" in page.text
    assert all(source.startswith("data:image/webp") for source in page.attributes("src"))
    for drawing in (tmp_path / "plots").glob("*.svg"):
        ElementTree.parse(drawing)


def test_counts_that_do_not_add_up_are_said(page: Page, results: dict[str, Any]) -> None:
    assert "add up" not in page.text
    results["verdicts"]["drop_reasons"] = {"low-quality": 400}
    results["stages"][-1]["rows"] = 1999
    told = rendered(results).text
    assert "2,000 kept and 400 dropped with a reason make 2,400, but 2,600 images were judged." in told
    assert "written with 2,000 rows, but 1,999 were loaded back." in told


def test_plots_of_an_earlier_run_do_not_stay(minimal: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("verdicts.png", "kid_gap__rad-dino.pdf", "mine.png", "alignment-mine.svg"):
        (tmp_path / "plots" / name).touch()
    write_report(minimal, tmp_path / "report.html")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"mine.png", "alignment-mine.svg"}


def test_same_results_give_the_same_bytes(
    full: Path, results: dict[str, Any], images: ReportImages, tmp_path: Path
) -> None:
    again = write_report(results, tmp_path, images=images)
    assert full.read_bytes() == again.read_bytes()
    for plot in (full.parent / "plots").iterdir():
        other = tmp_path / "plots" / plot.name
        if plot.suffix != ".png":
            assert plot.read_bytes() == other.read_bytes()
            continue
        # Films are scaled by code whose last rounding hangs on where the arrays lie in memory.
        one, two = (np.asarray(Image.open(path)).astype(int) for path in (plot, other))
        assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    "film", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
@pytest.mark.parametrize("place", ["kept", "ranked", "neighbours", "real_marks"])
def test_film_of_another_kind_is_refused_before_anything_is_written(
    film: np.ndarray, place: str, tmp_path: Path
) -> None:
    pair = (film, "x")
    found = {"kept": [pair], "ranked": [Ranked("Edema", [pair], [], [])], "neighbours": [Neighbours(pair, [])]}
    given: Any = (found | {"real_marks": {0: film}})[place]
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W\) or \(H, W, 3\), got"):
        write_report({}, tmp_path / "out", images=ReportImages(**{place: given}))
    assert not (tmp_path / "out").exists()


def test_other_commands_can_write_a_page_of_tables() -> None:
    table = Table("Ranks", "Lower is better.", [Column("Model"), Column("KID", "value")], [Rows("", [["a", "0.1"]])])
    page = Page(render(Sheet("Two models", [Section("ranks", "Ranks", [table]), Section("none", "Nothing", [])])))
    assert "Table 1. Ranks. Lower is better. Model KID a 0.1" in page.text
    assert "Nothing" not in page.text


def test_empty_columns_go_and_states_span_those_that_stay() -> None:
    rows = [["a", "1", "–", "2"], ["b", Cell("insufficient n", width=3)]]
    table = Table("", "", [Column(name) for name in "wxyz"], [Rows("", rows)]).compact()
    assert [column.title for column in table.columns] == ["w", "x", "z"]
    assert table.groups[0].rows == [["a", "1", "2"], ["b", Cell("insufficient n", width=2)]]


def test_numbers_of_crowded_points_do_not_cover_each_other_or_a_point() -> None:
    points = np.random.default_rng(0).normal([120, 90], 8, (14, 2))
    places = plots._apart(points, points)
    between = np.linalg.norm(places[:, None] - np.concatenate([places, points])[None], axis=2)
    between[np.arange(14), np.arange(14)] = np.inf
    assert between.min() > 4
    assert np.isfinite(plots._apart(points[:1], points[:1])).all()


def test_spread_rows_are_far_from_each_other() -> None:
    points = np.array([[0, 0], [0.1, 0], [10, 0], [0, 10], [np.nan, 0], [10, 0.1]])
    assert spread_rows(points, 3) == [3, 2, 0]
    assert spread_rows(points[:1], 3) == []
    assert spread_rows(np.empty((0, 2)), 3) == []
    assert len(spread_rows(points, 10)) == 5


def test_plots_of_two_networks_with_one_short_name_keep_apart() -> None:
    assert text.endings(["a/b", "a-b", ""]) == {"a/b": "__a-b", "a-b": "__a-b-2", "": ""}


def test_terminal_table_fits_100_columns(results: dict[str, Any], minimal: dict[str, Any]) -> None:
    wide = copy.deepcopy(results)
    wide["title"] = wide["warnings"][0] = "long words " * 40
    for row in wide["labels"]:
        row |= {"label": "L" * 200, "fid": 123456789.123, "n_real": 10**12, "density": 1e9, "alignment": -1e-9}
        row |= {"kid": -123456.7, "kid_interval": [-123456.7, 123456.7]} if row["state"] == "ok" else {}
    wide["overall"][0] |= {"label": "M" * 200, "value": 1e15, "interval": [1e15, 2e15]}
    for case in (results, minimal, wide):
        told = terminal_table(case)
        assert max(map(len, told.splitlines())) <= 100
        assert told.isascii()
    assert "in the report only" in terminal_table(results)
    assert re.search(r"Edema .* 0\.004 +differs", terminal_table(results))


def test_terminal_table_prints_no_control_characters(minimal: dict[str, Any]) -> None:
    minimal["warnings"] = ["\x1b[31mred\x07"]
    assert "\x1b" not in terminal_table(minimal)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([48.213, 9.8], 1), ([0.0123, 0.00041], 5), ([0.78], 3), ([1.07], 3), ([1234.5], 1), ([0.0], 3), ([None], 3)],
)
def test_digits_follow_the_size_of_the_values(values: list[float | None], expected: int) -> None:
    assert text.decimals(values) == expected


def test_numbers_as_text() -> None:
    assert text.number(-0.00001, 3) == "0.000"
    assert text.number(-1234.56, 1) == "−1,234.6"
    assert text.number(2.0, 1, signed=True) == "+2.0"
    assert text.number(float("inf"), 1) == text.ABSENT
    assert text.share(1, 100_000) == "<0.1 %"
    assert text.share(99_999, 100_000) == ">99.9 %"
    assert text.probability(0.0004) == "<0.001"
    assert text.probability(1.0) == "1.000"
    assert text.duration(3725) == "1 h 02 min"
    assert text.duration(59.97) == "1 min 00 s"
