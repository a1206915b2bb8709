"""The page of a reader study in a real browser: two readers at once, a browser that dies, what is painted and when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright import sync_api as playwright

from synthchex.study import answers, design

sys.path.insert(0, str(Path(__file__).parent))
import readers

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAINT_MS = 150
KEYS = {
    "Real or synthetic": ["r", "4"],
    "Quality": ["4", "3", "2", "5", "a", "j"],
    "Findings": ["b", "c"],
    "Which is better": ["ArrowLeft"],
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium"),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> readers.Study:
    """A study of 20 items and of every task for two readers."""
    given = readers.sets(tmp_path_factory.mktemp("sets"))
    folder = tmp_path_factory.mktemp("studies") / "study"
    wanted: dict[str, Any] = {"tasks": design.TASKS, "n": 2, "practice": 1, "repeats": 0.1}
    return readers.study(folder, given, strata=("Lung Opacity",), **wanted)


@pytest.fixture
def study(original: readers.Study, tmp_path: Path) -> readers.Study:
    """A copy of it."""
    return original._replace(folder=shutil.copytree(original.folder, tmp_path / "study"))


@contextmanager
def page(address: str, **how: Any) -> Iterator[Any]:
    """A page of the study in a browser of its own; it must say nothing on its console but that a code is needed."""
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        found = browser.new_context(viewport={"width": 1366, "height": 768}, **how).new_page()
        said = list[str]()
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.goto(address)
        yield found
        assert [line for line in said if "401" not in line] == []
        browser.close()


def enter(page: Any, code: str) -> None:
    page.wait_for_selector("#code")
    page.fill("#code", code)
    page.keyboard.press("Enter")
    page.wait_for_selector("#card h1:not(:has-text('Reader study'))")


def settle(page: Any) -> str:
    """Wait for an item or a sheet; the title of the sheet that is open."""
    page.wait_for_function("() => running || !byId('sheet').hidden")
    return str(page.inner_text("#card h1")) if page.is_visible("#sheet") else ""


def read(page: Any, most: int = 1000) -> list[int]:
    """Answer by keyboard until the end, or `most` items; ms from each answer to the paint of the next item."""
    paints = []
    for _ in range(most):
        while title := settle(page):
            if title == "Finished":
                return paints
            page.keyboard.press("Enter")
            page.wait_for_function(
                "(title) => byId('sheet').hidden || byId('card').innerText.indexOf(title) < 0", arg=title
            )
        if took := page.evaluate("document.documentElement.dataset.paint"):
            paints.append(int(took))
        position = page.evaluate("now.position")
        for key in KEYS[page.inner_text("#task-name")]:
            page.keyboard.press(key)
        page.wait_for_function("() => now.ahead.every((token) => films.has(token))")
        page.wait_for_timeout(150)  # nobody reads faster than a film is fetched ahead
        page.keyboard.press("Enter")
        page.wait_for_function("(at) => now.state === 'done' || now.position !== at", arg=position)
    return paints


def whole(study: readers.Study) -> Counter[tuple[str, int]]:
    """Every item of every reader, once."""
    items = design.read(study.folder, design.ORDERS)
    return Counter((reader, at) for reader in items for at in range(len(items[reader])))


def test_two_readers_do_the_study_at_once_and_one_browser_is_killed(study: readers.Study) -> None:
    paints: dict[str, list[int]] = {}
    ready = threading.Barrier(2)

    def steady(address: str) -> None:
        with page(address) as own:
            enter(own, study.codes["R1"])
            ready.wait()
            paints["R1"] = read(own)

    def killed(address: str) -> None:
        with playwright.sync_playwright() as engine:
            server = engine.chromium.launch_persistent_context(
                str(study.folder.parent / "profile"), executable_path=str(CHROMIUM), args=FLAGS
            )
            own = server.pages[0]
            own.goto(address)
            enter(own, study.codes["R2"])
            ready.wait()
            read(own, most=7)
            settle(own)
            own.keyboard.press("r")  # half an answer
            kill_browser(study.folder.parent / "profile")
        with page(address) as own:
            enter(own, study.codes["R2"])
            assert own.evaluate("now.position") == 7
            paints["R2"] = read(own)

    with readers.served(study.folder) as (address, _):
        threads = [threading.Thread(target=one, args=(address,)) for one in (steady, killed)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = answers.table(study.folder)
    assert Counter((row["reader"], row["position"]) for row in rows) == whole(study)
    assert all(row["seconds"] > 0.1 for row in rows)
    took = sorted(paints["R1"] + paints["R2"])
    print(f"\npaint after the answer: median {took[len(took) // 2]} ms, slowest {took[-1]} ms of {len(took)}")
    assert took[len(took) // 2] < PAINT_MS


def kill_browser(profile: Path) -> None:
    """End at once the browser that this test started with a profile, by the process that holds its lock."""
    pid = int(os.readlink(profile / "SingletonLock").rpartition("-")[2])
    os.kill(pid, signal.SIGKILL)


def test_the_server_dies_under_an_open_page_and_the_answer_arrives_when_it_is_back(study: readers.Study) -> None:
    with readers.served(study.folder) as (address, process), page_of_any_console(address) as own:
        enter(own, study.codes["R1"])
        read(own, most=3)
        settle(own)
        for key in KEYS["Real or synthetic"]:
            own.keyboard.press(key)
        process.send_signal(signal.SIGKILL)
        process.wait()
        own.keyboard.press("Enter")
        own.wait_for_selector("#note:has-text('Not saved yet')")
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "synthchex.cli", "study", "run", str(study.folder), "--port", port]
        again = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            own.wait_for_function("() => now.position === 4")
            read(own)
        finally:
            again.terminate()
            again.wait()
    rows = [(row["reader"], row["position"]) for row in answers.table(study.folder)]
    assert Counter(rows) == Counter({key: 1 for key in whole(study) if key[0] == "R1"})


@contextmanager
def page_of_any_console(address: str) -> Iterator[Any]:
    """A page whose console may say that the server is away."""
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        found = browser.new_context().new_page()
        found.goto(address)
        yield found
        browser.close()


def test_two_windows_of_one_reader_and_a_double_click_make_one_answer_each(study: readers.Study) -> None:
    with readers.served(study.folder) as (address, _), page_of_any_console(address) as first:
        enter(first, study.codes["R1"])
        second = first.context.new_page()
        second.goto(address)
        for own in (first, second):
            settle(own)
            own.keyboard.press("Enter")
            own.wait_for_function("() => running")
            for key in KEYS["Real or synthetic"]:
                own.keyboard.press(key)
        first.dblclick("#send")
        first.wait_for_function("() => now.position === 1")
        second.click("#send")
        second.wait_for_selector("h1:has-text('Answered already')")
        second.keyboard.press("Enter")
        second.wait_for_function("() => now.position === 1")
    assert [(row["reader"], row["position"]) for row in answers.table(study.folder)] == [("R1", 0)]


def test_zoom_window_and_pause_are_kept_with_the_answer_and_pauses_cost_no_time(study: readers.Study) -> None:
    with readers.served(study.folder) as (address, _), page(address) as own:
        enter(own, study.codes["R1"])
        own.keyboard.press("Enter")
        own.wait_for_function("() => running")
        before = own.evaluate("byId('stage').firstChild.toDataURL()")
        own.keyboard.press("+")
        own.wait_for_timeout(400)
        own.keyboard.press("Shift+ArrowRight")
        own.wait_for_timeout(400)
        assert own.evaluate("byId('stage').firstChild.toDataURL()") != before
        box = own.locator("#stage canvas").bounding_box()
        own.mouse.move(box["x"] + 200, box["y"] + 200)
        own.mouse.wheel(0, -200)
        own.mouse.down()
        own.mouse.move(box["x"] + 260, box["y"] + 220)
        own.mouse.up()
        own.wait_for_timeout(400)
        own.keyboard.press("Home")
        own.wait_for_timeout(400)
        assert own.evaluate("byId('stage').firstChild.toDataURL()") == before
        own.keyboard.press("Escape")
        assert own.is_visible("h1:has-text('Paused')")
        own.wait_for_timeout(3000)
        own.keyboard.press("Enter")
        for key in ("s", "5", "Enter"):
            own.keyboard.press(key)
        own.wait_for_function("() => now.position === 1")
    row = answers.table(study.folder)[0]
    assert row["answer"] == {"call": "synthetic", "confidence": 5}
    assert [event["kind"] for event in row["events"]] == ["zoom", "window", "zoom", "pan", "reset", "pause", "resume"]
    assert row["events"][0]["value"] == [1.25]
    assert row["seconds"] < row["answered_at"] - row["shown_at"] - 2.9


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1180, 820), (820, 1180)], ids=["laptop", "wide", "tall"])
def test_every_task_fits_the_screen_and_a_finger(study: readers.Study, width: int, height: int) -> None:
    touch = {"has_touch": True, "viewport": {"width": width, "height": height}} if width != 1366 else {}
    with readers.served(study.folder) as (address, _), playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        own = browser.new_context(**({"viewport": {"width": width, "height": height}} | touch)).new_page()
        own.goto(address)
        enter(own, study.codes["R1"])
        seen = set()
        while len(seen) < 4:
            while settle(own):
                own.keyboard.press("Enter")
                own.wait_for_timeout(50)
            if (task := own.inner_text("#task-name")) not in seen:
                seen.add(task)
                check_layout(own, width, height, touch=bool(touch))
            read(own, most=1)
        browser.close()


def check_layout(own: Any, width: int, height: int, *, touch: bool) -> None:
    """Nothing runs over its edge; the film has the larger part; the button to go on is on the screen."""
    assert own.evaluate("document.documentElement.scrollWidth") <= width
    assert own.evaluate("document.documentElement.scrollHeight") <= height
    over = own.evaluate(
        "[...document.querySelectorAll('#app button')].filter((b) => b.scrollWidth > b.clientWidth).length"
    )
    assert over == 0
    send = own.locator("#send").bounding_box()
    assert send["y"] + send["height"] <= height
    assert own.locator("#stage").bounding_box()["height"] >= 0.4 * height
    sizes = own.evaluate("[...document.querySelectorAll('#panel button')].map((b) => b.getBoundingClientRect().height)")
    assert min(sizes) >= (44 if touch else 30)
