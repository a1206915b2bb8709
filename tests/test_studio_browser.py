"""The studio as people use it: a browser drives the page of a real server. Needs gradio, playwright and Chromium."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from synthchex import phantom
from synthchex.data import images, records, shards

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
COUNT = 20_000
SECOND = 1000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) or CHROMIUM is None, reason=f"needs {MISSING or 'chromium'}"),
]


class Served(NamedTuple):
    """A studio that runs: its address, its process, the folder with its data."""

    url: str
    process: subprocess.Popen[str]
    folder: Path


def dataset(folder: Path, count: int) -> Path:
    """A judged set in which film i has the score i / count."""
    made = phantom.make(40, size=64, seed=2)
    pngs = [images.to_png(film) for film in made.images]
    schema = records.features(verdict=True).arrow_schema
    rows = [
        {
            "image": {"bytes": pngs[row % 40], "path": f"{row}.png"}, "filename": f"{row}.png", "id": f"f{row:05d}",
            "prompt": made.reports[row % 40],
            "labels_dict": dict(zip(records.LABELS, made.labels[row % 40].tolist(), strict=True)),
            "quality": "High Quality" if row * 2 >= count else "Low Quality", "judge": "test", "source_policy": "open",
            "quality_scores": json.dumps({"High Quality": row / count, "Low Quality": 1 - row / count}),
            "drop_reason": None if row * 2 >= count else "low_quality",
        }
        for row in range(count)
    ]  # fmt: skip
    (folder / "data").mkdir(parents=True)
    shards.write_table(shards.shard_path(folder, 0, 1), pa.Table.from_pylist(rows, schema))
    return folder


def evaluation(folder: Path) -> Path:
    """What an evaluation leaves, as far as the page shows it; the report tries to reach the page around it."""
    folder.mkdir()
    row = {"metric": "fid", "label": "FID", "encoder": "phantom", "value": 3.25, "interval": [3, 4], "better": "lower"}
    (folder / "results.json").write_text(json.dumps({"sets": {}, "overall": [row]}))
    script = "try { parent.document.title = 'reached' } catch (e) { document.title = 'kept apart' }"
    (folder / "report.html").write_text(f"<h1>scores of a run</h1><script>{script}</script>")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("studio")
    made = phantom.make(2, size=256, seed=3, markers=True)
    (folder / "marked.png").write_bytes(images.to_png(made.images[1]))
    words = [
        "--films",
        dataset(folder / "films", COUNT),
        "--real",
        dataset(folder / "real", 40),
        "--port",
        "0",
        "--json",
    ]
    words += ["--reports", evaluation(folder / "run"), "--ratings", folder / "ratings.csv", "--reader", "anna"]
    command = [sys.executable, "-m", "synthchex.cli", "studio", *map(str, words), "--device", "cpu"]
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "errors.txt").read_text()
        yield Served(json.loads(line)["url"], process, folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


class Visit(NamedTuple):
    """A page that is open, what it asked for and what went wrong in it."""

    page: Any
    asked: list[str]
    wrong: list[str]


@pytest.fixture
def visit(served: Served) -> Iterator[Visit]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(120 * SECOND)
        page.goto(served.url)
        page.wait_for_selector("#studio-make")
        yield Visit(page, asked, wrong)
        browser.close()
    foreign = [url for url in asked if not url.startswith((served.url, "data:", "blob:", "about:"))]
    assert foreign == []
    assert wrong == []


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_films_are_made_from_an_example_and_downloaded(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Prompt", exact=True).fill("seen on 2020-01-02")
    page.wait_for_selector("text=date: “2020-01-02”")
    page.get_by_label("Example findings").click()
    page.get_by_role("option").nth(1).click()
    page.wait_for_selector("text=The linter finds nothing.")
    page.locator("#studio-make").click()
    page.wait_for_selector("text=2 films are there.")
    assert page.locator("#studio-made .card img").count() == 2
    assert page.locator("#studio-made .bar").count() >= 2 * 14
    with page.expect_download() as waiting:
        page.locator("text=provenance JSON").first.click()
    said = json.loads(Path(waiting.value.path()).read_text())
    assert (said["id"], said["steps"], said["model"]) == ("studio-0-0", 15, "embedded:phantom/generator")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="PNG", exact=True).first.click()
    assert images.read(Path(waiting.value.path())).pixels.shape == (64, 64)


def test_cancel_stops_the_films_that_are_being_made(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Prompt", exact=True).fill("severe cardiomegaly")
    page.get_by_label("number input for Steps").fill("250")
    page.get_by_label("number input for Films").fill("8")
    page.get_by_label("number input for Films").press("Tab")
    page.locator("#studio-make").click()
    page.wait_for_selector("text=/denoising/ >> visible=true")
    page.locator("#studio-cancel").click()
    page.wait_for_selector("text=/Stopped after [0-7] films/")


def test_a_prompt_that_is_empty_is_a_message_and_no_trace(visit: Visit) -> None:
    visit.page.locator("#studio-make").click()
    visit.page.wait_for_selector("text=expected a prompt of 1 to 4000 characters, got 0")
    assert "Traceback" not in visit.page.content()


def test_a_ticked_text_is_erased_from_an_upload(visit: Visit, served: Served) -> None:
    page = visit.page
    open_tab(page, "Clean")
    page.locator("input[type=file]").first.set_input_files(served.folder / "marked.png")
    page.wait_for_selector("text=2 texts found")
    assert (page.locator("rect.erase").count(), page.locator("rect.keep").count()) == (1, 1)
    page.locator("#studio-texts input").first.check()
    page.wait_for_function("document.querySelectorAll('rect.erase').length === 2")
    page.locator("#studio-erase").click()
    page.wait_for_selector("text=2 of 2 texts erased")
    assert page.locator(".cut img").count() == 2
    page.locator(".cut input").fill("80")
    assert page.locator(".cut").get_attribute("style") == "--cut: 80%;"
    with page.expect_download() as waiting:
        page.locator("text=Download the film as PNG").click()
    before = images.read(served.folder / "marked.png").pixels
    after = images.read(Path(waiting.value.path())).pixels
    assert 0.001 < (before != after).mean() < 0.1
    page.locator("input[type=file]").first.set_input_files(
        files=[{"name": "film.png", "mimeType": "image/png", "buffer": b"<script>alert(1)</script>"}]
    )
    page.wait_for_selector("text=expected an image file")


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).first.click()


def counted(page: Any, words: str) -> str:
    page.wait_for_selector(f"#studio-counted >> text={words}")
    return str(page.locator("#studio-counted").inner_text())


def test_twenty_thousand_films_are_filtered_and_paged(visit: Visit) -> None:
    page = visit.page
    open_tab(page, "Browse")
    counted(page, "films 1 to 24 of 20,000")
    choose(page, "Verdict", "High Quality (10,000)")
    counted(page, "of 10,000")
    choose(page, "Score", "High Quality")
    page.get_by_label("worst first").check()
    page.wait_for_function("document.querySelector('.thumb bdi')?.innerText === '0.500'")
    began = time.monotonic()
    page.locator("#studio-page-next").click()
    counted(page, "films 25 to 48 of 10,000 · page 2 of 417")
    assert time.monotonic() - began < 5
    page.get_by_label("From").fill("0.9")
    page.get_by_label("From").press("Enter")
    counted(page, "films 1 to 24 of 2,000")
    page.locator(".thumb").nth(5).click()
    counted(page, "at 6")
    assert page.locator("#studio-one .mono").first.inner_text() == "f18005"
    page.get_by_label("From").fill("half")
    page.get_by_label("From").press("Enter")
    page.wait_for_selector("text=expected a number for the range")


def test_keys_rate_films_in_order_and_none_is_lost(visit: Visit, served: Served) -> None:
    page = visit.page
    open_tab(page, "Browse")
    counted(page, "films 1 to 24 of 20,000")
    for key in ("1", "ArrowRight", "2", "ArrowRight", "3", "ArrowRight", "4", "ArrowRight", "1", "0", "ArrowLeft", "2"):
        page.keyboard.press(key)
    page.wait_for_function("document.querySelectorAll('.thumb u').length === 4 && "
                           "document.querySelectorAll('.thumb u')[3].innerText === '2'")  # fmt: skip
    counted(page, "at 4")
    with (served.folder / "ratings.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    classes = records.QUALITIES
    assert rows == [
        ["id", "anna"], ["f00000", classes[0]], ["f00001", classes[1]], ["f00002", classes[2]], ["f00003", classes[3]],
        ["f00004", classes[0]], ["f00004", ""], ["f00003", classes[1]],
    ]  # fmt: skip
    page.get_by_label("Prompt contains").press("3")
    page.wait_for_timeout(SECOND)
    assert len((served.folder / "ratings.csv").read_text().splitlines()) == len(rows)


def test_the_nearest_real_films_stand_beside_a_film(visit: Visit) -> None:
    page = visit.page
    open_tab(page, "Browse")
    counted(page, "films 1 to 24")
    page.locator("#studio-near-look").click()
    page.wait_for_selector("#studio-near .card")
    assert page.locator("#studio-near .card img").count() == 4
    assert re.match(r"0\.000", page.locator("#studio-near .card").nth(1).inner_text())
    page.locator("#studio-to-clean").click()
    page.wait_for_selector("text=f00000: no text found")


def test_a_report_is_shown_and_cannot_reach_the_page(visit: Visit) -> None:
    page = visit.page
    open_tab(page, "Report")
    page.locator("#studio-report input").click()
    page.get_by_role("option", name="run").click()
    page.frame_locator("iframe.report").get_by_text("scores of a run").wait_for()
    assert page.title() == "synthchex studio"
    page.locator("#studio-beside").click()
    page.wait_for_selector("text=3.25 [3, 4]")
    page.locator("#studio-tests").click()
    page.wait_for_selector("text=expected two or more evaluations to compare, got 1")


def test_dark_and_light_can_be_changed(visit: Visit) -> None:
    page = visit.page
    before = page.evaluate("document.body.classList.contains('dark')")
    page.locator("#studio-switch").click()
    page.wait_for_function(f"document.body.classList.contains('dark') !== {json.dumps(before)}")


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd", "gradio_api/file=../../../../etc/passwd", "gradio_api/file=ratings.csv",
        "file=ratings.csv", "gradio_api/file/etc/passwd", "gradio_api/proxy=https://example.org/",
        "assets/../../../../../etc/passwd",
        "assets/%2e%2e/%2e%2e/index.html", "static/..%2f..%2f..%2fetc%2fpasswd", "svelte/../../launch.py",
        "monitoring", "docs",
    ],
)  # fmt: skip
def test_no_route_gives_a_file_away(served: Served, path: str) -> None:
    import http.client

    host = served.url.removeprefix("http://").strip("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", f"/{path}")  # as it stands: urllib would fold the dots
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status in (403, 404), body[:200]
    assert b"root:" not in body
    assert b"anna" not in body


def test_an_uploaded_file_cannot_be_fetched_and_a_large_one_is_refused(served: Served) -> None:
    def post(content: bytes) -> Any:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.html"\r\n\r\n'
            + content
            + b"\r\n--x--\r\n"
        )
        head = {"Content-Type": "multipart/form-data; boundary=x"}
        return urllib.request.urlopen(urllib.request.Request(f"{served.url}gradio_api/upload", body, head), timeout=120)

    (path,) = json.loads(post(b"<script>").read())
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{served.url}gradio_api/file={path}", timeout=30)
    with pytest.raises(urllib.error.HTTPError, match="413"):
        post(bytes(65 * 2**20))


def test_the_address_is_this_machines_alone(served: Served) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", served.url)
