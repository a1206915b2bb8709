"""The report: what it shows, what it leaves out, and that nothing in it can reach the network or run."""

from __future__ import annotations

import copy
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthchex.data.records import LABELS
from synthchex.report import ReportImages, tables, terminal_table, write_report
from synthchex.report.page import render

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}$x_$"
PLOTS = {"kid_per_label", "prdc", "prdc_per_label", "alignment", "verdicts", "feature_map"}
VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use", "rect"}


def overall_row(metric: str, label: str, value: float | None, better: str, **more: Any) -> dict[str, Any]:
    row = {"metric": metric, "label": label, "value": value, "better": better, "interval": None, "floor": None}
    return row | {"n_real": 2400, "n_synthetic": 2000, "note": None} | more


def label_row(label: str, i: int) -> dict[str, Any]:
    row: dict[str, Any] = {"label": label, "n_real": 1204 + i, "n_synthetic": 5 if i == 3 else 300 + i}
    if i == 3:
        return row | {"state": "insufficient n", "kid": None, "fid": None}
    scores = {
        "kid": 0.0123456789 + i / 1000,
        "kid_interval": [0.001, 0.03],
        "kid_floor": 0.000412345,
        "fid": 40.123456789,
    }
    return (
        row
        | scores
        | {"state": "ok", "precision": 0.8, "recall": 0.4, "density": 1.2, "coverage": 0.7, "alignment": 0.3}
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything, written once for the tests that only look."""
    return write_report(full_results(), tmp_path_factory.mktemp("full"), images=full_images())


@pytest.fixture
def results() -> dict[str, Any]:
    return full_results()


def full_results() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "title": "A study",
        "domain": "phantom",
        "created": "2026-01-02T03:04:05+00:00",
        "command": "synthchex study --out study",
        "stages": [
            {"name": "prompts", "rows": 2600, "seconds": None, "note": None},
            {"name": "generated", "rows": 2600, "seconds": 1342.26, "note": "noise"},
            {"name": "judged", "rows": 2600, "seconds": 61.7, "note": None},
            {"name": "kept", "rows": 2100, "seconds": None, "note": None},
            {"name": "dataset", "rows": 2100, "seconds": 1.0, "note": None},
            {"name": "loaded back", "rows": 2100, "seconds": 0.5, "note": None},
        ],
        "verdicts": {
            "judge": "fixed",
            "calibration": "300 films",
            "quality": {"High Quality": 1500, "Medium Quality": 600, "Low Quality": 400, "Not Relevant": 100},
            "drop_reasons": {"low-quality": 400, "not-relevant": 100},
        },
        "sets": {
            "real": {"source": "folder", "n": 2400, "skipped": {}},
            "synthetic": {"source": "dataset", "n": 2000, "skipped": {"unreadable": 3}},
        },
        "encoder": {"name": "DINOv2", "key": "dinov2@1", "width": 384},
        "image_text": {"name": "dual", "key": "dual@1"},
        "overall": [
            overall_row("fid", "FID", 48.2131234567, "lower", interval=[46.1, 50.9], floor=9.8871),
            overall_row("kid", "KID", 0.0123456789, "lower", interval=[0.0101, 0.0149], floor=0.00041),
            overall_row("precision", "Precision", 0.781234567, "higher", floor=0.86),
            overall_row("recall", "Recall", None, "higher"),
            overall_row("r@1", "R@1", float("nan"), "higher", note="not enough pairs"),
        ],
        "labels": [label_row(label, i) for i, label in enumerate(LABELS)],
        "warnings": ["FID is biased at this n."],
        "methods": "Read once.\n\nKID after https://arxiv.org/abs/1801.01401.",
        "versions": {"synthchex": "0.1.0"},
        "config": {"seed": 0},
        "hashes": {"real": "9f2c"},
    }


@pytest.fixture
def minimal() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "title": "Two folders",
        "domain": "radiographs",
        "sets": {"real": {"source": "a", "n": 120}, "synthetic": {"source": "b", "n": 110}},
        "overall": [overall_row("kid", "KID", 0.0123, "lower")],
    }


@pytest.fixture
def images() -> ReportImages:
    return full_images()


def full_images() -> ReportImages:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (40, 30), dtype=np.uint8)
    colour = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    return ReportImages(
        real=[(film, "00012.png"), (colour, "")],
        kept=[(film, f"{HOSTILE}\nHigh Quality"), (film, "a very long prompt " * 20)],
        rejected=[(film, "blurred\nLow Quality\nlow-quality")],
        best_aligned=[(film, "edema\ncosine 0.6")] * 30,
        worst_aligned=[(film, "edema\ncosine 0.1")],
        real_points=rng.normal(size=(900, 2)),
        synthetic_points=rng.normal(size=(40, 2)),
        matched=rng.normal(0.4, 0.1, 200),
        shuffled=np.append(rng.normal(0.2, 0.1, 200), np.nan),
    )


class Page(HTMLParser):
    """Tags with their attributes, ids, and visible text; complains about tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def rendered(results: dict[str, Any], out: Path, images: ReportImages | None = None) -> Page:
    return Page(write_report(results, out, images=images).read_text(encoding="utf-8"))


def test_full_page_has_every_section_and_every_plot(full: Path) -> None:
    page = Page(full.read_text(encoding="utf-8"))
    assert (
        set(page.attributes("id")) >= {"overall", "labels", "distributions", "faithfulness", "origin", "films"} | PLOTS
    )
    assert {path.name for path in (full.parent / "plots").iterdir()} == {
        f"{p}.{e}" for p in PLOTS for e in ("png", "svg")
    }
    assert page.text.count("phantom domain: a simulation") == 0  # the banner's first words are set in bold
    assert "Phantom domain: a simulation; scores are not comparable with real radiographs." in page.text
    assert "lower is better" in page.text
    assert "2,600" in page.text
    assert "The first 24 of 30." in page.text
    assert list(full.parent.glob(".*")) == []


def test_page_loads_nothing_and_runs_nothing(full: Path) -> None:
    page = Page(full.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("src"))
    assert all(link.startswith(("#", "https://arxiv.org/")) for link in page.attributes("href"))
    assert all(link.startswith("#") for link in page.attributes("xlink:href"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    text = full.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 2_000_000


def test_ids_are_unique_and_internal_links_resolve(full: Path) -> None:
    page = Page(full.read_text(encoding="utf-8"))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    links = page.attributes("href") + page.attributes("xlink:href")
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert set(page.attributes("aria-labelledby")) <= set(ids)
    text = full.read_text(encoding="utf-8")
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_images_tables_and_plots_are_described(full: Path) -> None:
    page = Page(full.read_text(encoding="utf-8"))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") == "img")


def test_every_number_is_formatted_and_missing_ones_are_dashes(full: Path) -> None:
    page = Page(full.read_text(encoding="utf-8"))
    assert not re.findall(r"\d\.\d{6,}", page.text)
    assert not re.findall(r"\b(nan|None|inf|Undefined)\b", page.text)
    for text in ("48.2", "0.01235", "0.01010 to 0.01490", "0.00041", "22 min 22 s", "2026-01-02 03:04 UTC"):
        assert text in page.text
    assert tables.ABSENT in page.text


def test_label_with_too_few_images_shows_its_state_and_no_number(results: dict[str, Any]) -> None:
    results["labels"][3]["kid"] = 0.98765  # a number that must not be shown, whatever the caller left there
    text = render(results, [], {})
    row = re.search(r'<th scope="row">Lung Opacity</th>.*?</tr>', text, re.S)
    assert row is not None
    assert "insufficient n" in row[0]
    assert "1,207" in row[0]
    assert "0.987" not in text
    assert "insufficient n" in terminal_table(results)
    assert "0.987" not in terminal_table(results)


def test_minimal_results_leave_sections_out(minimal: dict[str, Any], tmp_path: Path) -> None:
    page = rendered(minimal, tmp_path)
    left_out = {"labels", "films", "faithfulness", "methods", "provenance", "distributions"} | PLOTS
    assert not set(page.attributes("id")) & left_out
    for absent in ("Phantom", "warning", "Stage", "dropped", "Judge", "Label"):
        assert absent not in page.text
    assert "No real-vs-real floor was measured." in page.text
    assert "Interval" not in page.text
    assert "not counted" in page.text  # skipped files: unknown is not none
    assert list((tmp_path / "plots").iterdir()) == []


@pytest.mark.parametrize("results", [{}, {"overall": None, "labels": [], "sets": None, "verdicts": None, "stages": []}])
def test_results_without_anything_still_render(results: dict[str, Any], tmp_path: Path) -> None:
    page = rendered(results, tmp_path)
    assert "section" not in [tag for tag, _ in page.tags]
    assert terminal_table(results) == "Evaluation\n"


def test_each_absent_key_is_survived(results: dict[str, Any], tmp_path: Path) -> None:
    for key in results:
        rest = {name: value for name, value in results.items() if name != key}
        assert Page(render(rest, [], {})).text
        terminal_table(rest)
    bare = {"overall": [{"metric": "kid"}], "labels": [{"label": "Edema"}], "stages": [{"name": "kept"}]}
    rendered(bare | {"sets": {"real": {"n": 3}}, "encoder": {"name": "x"}, "verdicts": {"quality": {}}}, tmp_path)


def test_hostile_strings_are_escaped_everywhere(results: dict[str, Any], images: ReportImages, tmp_path: Path) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, str):
            return HOSTILE
        if isinstance(value, dict):
            return {key: poisoned(item) for key, item in value.items()}
        return [poisoned(item) for item in value] if isinstance(value, list) else value

    bad = poisoned(copy.deepcopy(results)) | {"domain": "phantom"}
    for row in bad["labels"]:
        row["state"] = "ok"
    bad["labels"][3]["state"] = HOSTILE
    bad["verdicts"]["drop_reasons"] = {HOSTILE: 500}
    bad["verdicts"]["quality"] = {HOSTILE: 5, "High Quality": 3}
    bad["sets"]["real"]["skipped"] = {HOSTILE: 2}
    bad["hashes"] = bad["versions"] = {HOSTILE: HOSTILE}
    page = rendered(bad, tmp_path, images)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert html.escape("<img src=x") in text
    assert "{{ 7*7 }}" in page.text
    assert all(source.startswith("data:image/jpeg") for source in page.attributes("src"))


def test_counts_that_do_not_add_up_are_said(full: Path, results: dict[str, Any]) -> None:
    assert "add up" not in Page(full.read_text(encoding="utf-8")).text
    results["verdicts"]["drop_reasons"] = {"low-quality": 400}
    results["stages"][-1]["rows"] = 2099
    text = Page(render(results, [], {})).text
    expected = "2,100 kept and 400 dropped with a reason make 2,500, but 2,600 images were judged."
    assert expected in text
    assert "written with 2,100 rows, but 2,099 were loaded back." in text


def test_plots_of_an_earlier_run_do_not_stay(minimal: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("verdicts.png", "verdicts.svg", "mine.png"):
        (tmp_path / "plots" / name).touch()
    write_report(minimal, tmp_path / "report.html")
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["mine.png"]


def test_same_results_give_the_same_bytes(
    full: Path, results: dict[str, Any], images: ReportImages, tmp_path: Path
) -> None:
    assert full.read_bytes() == write_report(results, tmp_path, images=images).read_bytes()


@pytest.mark.parametrize(
    "film", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_film_of_another_kind_is_refused_before_anything_is_written(film: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kept films must be uint8 \(H, W\) or \(H, W, 3\), got"):
        write_report({}, tmp_path / "out", images=ReportImages(kept=[(film, "x")]))
    assert not (tmp_path / "out").exists()


def test_terminal_table_fits_100_columns(results: dict[str, Any], minimal: dict[str, Any]) -> None:
    wide = copy.deepcopy(results)
    wide["title"] = wide["warnings"][0] = "long words " * 40
    for row in wide["labels"]:
        row |= {"label": "L" * 200, "fid": 123456789.123, "n_real": 10**12, "density": 1e9, "alignment": -1e-9}
        row |= {"kid": -123456.7, "kid_interval": [-123456.7, 123456.7]} if row["state"] == "ok" else {}
    wide["overall"][0] |= {"label": "M" * 200, "value": 1e15, "interval": [1e15, 2e15]}
    for case in (results, minimal, wide):
        text = terminal_table(case)
        assert max(map(len, text.splitlines())) <= 100
        assert text.isascii()
    assert "in the report only" in terminal_table(results)


def test_terminal_table_prints_no_control_characters(minimal: dict[str, Any]) -> None:
    minimal["warnings"] = ["\x1b[31mred\x07"]
    assert "\x1b" not in terminal_table(minimal)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([48.213, 9.8], 1), ([0.0123, 0.00041], 5), ([0.78], 3), ([1.07], 3), ([1234.5], 1), ([0.0], 3), ([None], 3)],
)
def test_digits_follow_the_size_of_the_values(values: list[float | None], expected: int) -> None:
    assert tables.decimals(values) == expected


def test_numbers_as_text() -> None:
    assert tables.number(-0.00001, 3) == "0.000"
    assert tables.number(-1234.56, 1) == "−1,234.6"
    assert tables.number(float("inf"), 1) == tables.ABSENT
    assert tables.share(1, 100_000) == "<0.1 %"
    assert tables.share(99_999, 100_000) == ">99.9 %"
    assert tables.duration(3725) == "1 h 02 min"
    assert tables.duration(59.97) == "1 min 00 s"
