"""A reader study as readers meet it: one way, no answer lost or doubled, nothing said of the truth."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
import uvicorn
from starlette.testclient import TestClient

from synthchex import cli
from synthchex.commands import study_analysis
from synthchex.options import BAD_INPUT
from synthchex.study import access, answers, arms, design, results, server, serving

sys.path.insert(0, str(Path(__file__).parent))
import readers

HOME = "http://127.0.0.1:8765"
REQUEST = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[arms.Arm]:
    """A real set and two models."""
    return readers.sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def original(given: list[arms.Arm], tmp_path_factory: pytest.TempPathFactory) -> readers.Study:
    """A study of all tasks that nobody has read."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    return readers.study(folder, given, tasks=design.TASKS, strata=("Lung Opacity",))


@pytest.fixture
def study(original: readers.Study, tmp_path: Path) -> readers.Study:
    """A copy of it."""
    return original._replace(folder=shutil.copytree(original.folder, tmp_path / "study"))


@pytest.fixture
def client(study: readers.Study) -> Iterator[TestClient]:
    """A browser before the study."""
    made = server.app(study.folder)
    with TestClient(made, base_url=HOME) as client:
        yield client
    made.state.running.store.close()


def enter(client: TestClient, code: str) -> dict[str, Any]:
    assert client.post("/login", json={"code": code}).status_code == 200
    found: dict[str, Any] = client.get("/item").json()
    return found


def body(item: dict[str, Any], reader: str = "R1", **changed: Any) -> dict[str, Any]:
    said = {"reader": reader, "position": item["position"], "token": f"{item['position']:032d}", "seconds": 2.5}
    return said | {"answer": readers.somehow(item["task"], item["position"]), "events": []} | changed


@pytest.fixture
def address(study: readers.Study) -> Iterator[str]:
    """The study on a real socket, in this process."""
    made = server.app(study.folder)
    running = uvicorn.Server(uvicorn.Config(made, port=0, log_level="error", server_header=False, lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()
    made.state.running.store.close()


# --- a reader's way through


def test_two_readers_at_once_answer_everything_and_the_table_has_it_all(study: readers.Study, address: str) -> None:
    def read(code: str) -> None:
        reader = readers.Reader(address)
        item = reader.enter(code)
        while item["state"] == "item":
            reader.films(item)
            item = reader.answer(item).json

    threads = [threading.Thread(target=read, args=(code,)) for code in study.codes.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows, shown = answers.table(study.folder), design.read(study.folder, design.ORDERS)
    assert [(row["reader"], row["position"]) for row in rows] == [
        (reader, at) for reader in ("R1", "R2") for at in range(len(shown[reader]))
    ]
    for row in rows:
        item = shown[row["reader"]][row["position"]]
        assert {name: row[name] for name in ("case", "task", "repeat", "practice")} == {
            name: item[name] for name in ("case", "task", "repeat", "practice")
        }
        said = readers.somehow(row["task"], row["position"])
        sides = {"left": item["films"][0], "right": item["films"][1]} if row["task"] == "preference" else {}
        assert row["answer"] == said | sides
        assert row["seconds"] == 1.5
        assert row["shown_at"] <= row["answered_at"]
        assert row["showings"] == 1
        assert row["events"] == [{"t": 10, "kind": "zoom", "value": [1.25]}]
    truth = answers.truth(study.folder)
    assert {film for row in rows for film in shown[row["reader"]][row["position"]]["films"]} <= set(truth)


def test_an_answer_given_twice_is_kept_once(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    first, again = (client.post("/answer", json=body(item)) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["position"] == again.json()["position"] == 1
    other = client.post("/answer", json=body(item, token="f" * 32))
    assert (other.status_code, other.json()) == (
        409,
        {"error": "This item was answered already, in another window perhaps."},
    )
    assert len(answers.table(study.folder)) == 1


def test_two_windows_at_the_same_moment_make_one_answer(study: readers.Study, address: str) -> None:
    windows = [readers.Reader(address) for _ in range(6)]
    items = [window.enter(study.codes["R1"]) for window in windows]
    said: list[int] = []
    threads = [
        threading.Thread(target=lambda one=window, now=item: said.append(one.answer(now).status))  # type: ignore[misc]
        for window, item in zip(windows, items, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [200] + [409] * 5
    assert len(answers.table(study.folder)) == 1


def test_there_is_no_way_back_and_no_way_ahead(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    for position in (1, 5, -1, 10_000, "0", None, True, 0.0):
        assert client.post("/answer", json=body(item, position=position)).status_code in (409, 422)
    assert client.get(f"/film/{item['films'][0]}").status_code == 200
    after = client.post("/answer", json=body(item)).json()
    assert after["films"] == item["ahead"]
    assert client.post("/answer", json=body(item, token="a" * 32)).status_code == 409
    assert client.get(f"/film/{item['films'][0]}").status_code == 404
    assert client.get("/item").json()["position"] == 1
    assert len(answers.table(study.folder)) == 1


def test_a_film_is_given_once_and_anew_after_a_reload(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    first = client.get(f"/film/{item['films'][0]}")
    assert (first.status_code, first.headers["content-type"]) == (200, "image/png")
    assert client.get(f"/film/{item['films'][0]}").status_code == 404
    again = client.get("/item").json()
    assert again["position"] == item["position"]
    assert again["films"] != item["films"]
    assert client.get(f"/film/{again['films'][0]}").content == first.content
    assert client.get(f"/film/{item['ahead'][0]}").status_code == 404


def test_a_film_belongs_to_the_reader_it_was_made_for(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    with TestClient(client.app, base_url=HOME) as other:
        assert other.get(f"/film/{item['films'][0]}").status_code == 401
        enter(other, study.codes["R2"])
        assert other.get(f"/film/{item['films'][0]}").status_code == 404
    assert client.get(f"/film/{item['films'][0]}").status_code == 200


def test_a_window_whose_reader_changed_cannot_answer_for_the_new_one(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    enter(client, study.codes["R2"])
    refused = client.post("/answer", json=body(item))
    assert (refused.status_code, refused.json()["error"]) == (409, "Somebody else has signed in, in another window.")
    assert answers.table(study.folder) == []


def test_practice_may_be_told_and_nothing_else(given: list[arms.Arm], tmp_path: Path) -> None:
    study = readers.study(tmp_path / "s", given[:2], n=2, practice=2, feedback=True, readers=1, repeats=0)
    truth, items = answers.truth(study.folder), design.read(study.folder, design.ORDERS)["R1"]
    with TestClient(server.app(study.folder), base_url=HOME) as client:
        item, told = enter(client, study.codes["R1"]), []
        while item["state"] == "item":
            item = client.post("/answer", json=body(item)).json()
            told.append(item["told"])
    assert told == [truth[one["case"]]["arm"] if one["practice"] else None for one in items]
    assert told[:2] != [None, None]


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("authenticity", {"call": "real"}),
        ("authenticity", {"call": "fake", "confidence": 3}),
        ("authenticity", {"call": "real", "confidence": 6}),
        ("authenticity", {"call": "real", "confidence": True}),
        ("authenticity", [1]),
        ("quality", {"anatomy": 1, "pathology": 2, "artefacts": 3, "tags": []}),
        ("quality", {"anatomy": 1, "pathology": 2, "artefacts": 3, "overall": 4, "tags": ["made up"]}),
        ("quality", {"anatomy": 1, "pathology": 2, "artefacts": 3, "overall": 4, "tags": [], "comment": "x" * 2001}),
        ("preference", {"chosen": "both"}),
        ("diagnosis", {"present": ["Flu"]}),
        ("diagnosis", {}),
    ],
)
def test_answers_with_parts_missing_are_not_kept(task: str, answer: Any) -> None:
    with pytest.raises(ValueError, match=f"expected an answer to {task} with all its parts"):
        answers.checked(task, answer, design.task_texts(design.Design(tasks=design.TASKS))[task])


# --- crashes


def test_the_server_is_killed_while_readers_answer_and_nothing_is_lost_or_doubled(study: readers.Study) -> None:
    confirmed: dict[str, list[int]] = {reader: [] for reader in study.codes}
    pending: dict[str, tuple[dict[str, Any], str]] = {}

    def read(browser: readers.Reader, item: dict[str, Any], token: str | None = None) -> None:
        while item["state"] == "item":
            pending[browser.name] = (item, token or f"{browser.name}{item['position']:030d}")
            try:
                kept = browser.answer(item, token=pending[browser.name][1])
            except (OSError, http.client.HTTPException):
                return  # the server is gone; as the page does, the same request is sent again later
            assert kept.status == 200
            confirmed[browser.name].append(item["position"])
            item, token = kept.json, None

    browsers = {reader: readers.Reader("") for reader in study.codes}
    with readers.served(study.folder) as (address, process):
        threads = []
        for reader, code in study.codes.items():
            browsers[reader] = readers.Reader(address)
            threads.append(threading.Thread(target=read, args=(browsers[reader], browsers[reader].enter(code))))
        for thread in threads:
            thread.start()
        while sum(map(len, confirmed.values())) < 7:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    before = {(row["reader"], row["position"]) for row in answers.table(study.folder)}
    assert {(reader, at) for reader, done in confirmed.items() for at in done} <= before
    with readers.served(study.folder) as (address, _):
        for browser in browsers.values():
            browser.host, browser.line = address.removeprefix("http://"), None  # its session is still good
            read(browser, *pending[browser.name])
    rows = answers.table(study.folder)
    items = design.read(study.folder, design.ORDERS)
    assert Counter((row["reader"], row["position"]) for row in rows) == Counter(
        (reader, at) for reader in items for at in range(len(items[reader]))
    )


def test_fifty_readers_at_once_lose_nothing(
    given: list[arms.Arm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(access.COST, "n", 2**8)  # the codes are not what is tested
    study = readers.study(tmp_path / "s", given[:2], n=2, practice=0, repeats=0, readers=50)
    made = server.app(study.folder)
    running = uvicorn.Server(uvicorn.Config(made, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    place = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    together, slowest = threading.Barrier(50), list[float]()

    def read(code: str) -> None:
        browser = readers.Reader(place)
        item = browser.enter(code)
        together.wait()
        while item["state"] == "item":
            browser.films(item)
            began = time.perf_counter()
            item = browser.answer(item).json
            slowest.append(time.perf_counter() - began)

    threads = [threading.Thread(target=read, args=(code,)) for code in study.codes.values()]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    running.should_exit = True
    thread.join()
    rows = answers.table(study.folder)
    assert Counter((row["reader"], row["position"]) for row in rows) == Counter(
        (f"R{reader}", at) for reader in range(1, 51) for at in range(4)
    )
    print(f"\nanswers of 50 readers at once: median {np.median(slowest):.3f} s, slowest {max(slowest):.3f} s")


def test_a_study_is_served_by_one_process_and_goes_on_after_it(study: readers.Study) -> None:
    with readers.served(study.folder) as (address, _):
        browser = readers.Reader(address)
        browser.answer(browser.enter(study.codes["R1"]))
        with pytest.raises(ValueError, match="is being served by another process"):
            serving.serve(study.folder, port=0)
    with readers.served(study.folder) as (address, _):
        assert readers.Reader(address).enter(study.codes["R1"])["position"] == 1


# --- nothing of the truth


def test_nothing_that_a_reader_receives_tells_real_from_synthetic(
    study: readers.Study, given: list[arms.Arm], address: str
) -> None:
    browsers = []
    for reader, code in study.codes.items():
        browser = readers.Reader(address)
        browser.ask("/")
        browser.ask("/favicon.ico")
        item = browser.enter(code)
        while item["state"] == "item":
            browser.films(item)
            item = browser.answer(item).json
        browser.ask("/item")
        browser.ask("/logout", {})
        browsers.append((reader, browser))
    secret = {arm.model for arm in given if arm.model != "real"} | set(answers.truth(study.folder))
    for arm in given:
        films = arm.films
        secret |= {str(one) for one in films.ids} | set(films.prompts or []) | set(films.patients or [])
        secret |= {arm.films.fetch(row).name for row in range(len(films))} | {str(Path(films.source).parent)}
    secret |= {item["case"] for items in design.read(study.folder, design.ORDERS).values() for item in items}
    secret |= {"hospital", "request ", str(study.folder), study.sha256, *study.codes.values()}
    for _, browser in browsers:
        for one in browser.received:
            received = (one.path + "\n" + str(one.headers)).encode() + one.body
            assert not [word for word in secret if word.lower().encode() in received.lower()], one.path
    for reader, browser in browsers:
        check_films(study, reader, browser)
        check_items(study, reader, browser)


def check_films(study: readers.Study, reader: str, browser: readers.Reader) -> None:
    """Films differ in their pixels alone."""
    sent = [one for one in browser.received if one.path.startswith("/film/")]
    shown = [film for item in design.read(study.folder, design.ORDERS)[reader] for film in item["films"]]
    assert [one.body for one in sent] == [(study.folder / "films" / f"{film}.png").read_bytes() for film in shown]
    assert len({len(one.body) for one in sent}) == 1
    assert len({json.dumps([h for h in one.headers if h[0] != "date"]) for one in sent}) == 1
    for one in sent:
        assert set(readers.png_chunks(one.body)) == {b"IHDR", b"IDAT", b"IEND"}


def check_items(study: readers.Study, reader: str, browser: readers.Reader) -> None:
    """What comes with a film depends on its place, its task and its matched findings alone."""
    items, truth = design.read(study.folder, design.ORDERS)[reader], answers.truth(study.folder)
    kinds: dict[str, set[str]] = {"real": set(), "synthetic": set()}
    for one in browser.received:
        if one.path not in ("/item", "/answer") or one.json["state"] != "item":
            continue
        found = one.json
        found.pop("tasks", None)
        assert not re.search("real|synth|fake|repeat", json.dumps(found).lower())
        assert {len(token) for token in found["films"] + found["ahead"]} <= {32}
        item = items[found["position"]]
        if item["task"] != "preference":
            own = ("position", "at", "films", "ahead", "findings", "reader")
            rest = {key: value for key, value in found.items() if key not in own}
            kinds[truth[item["case"]]["arm"]].add(json.dumps(rest, sort_keys=True))
    counted = [{one for one in kind if not json.loads(one)["practice"]} for kind in kinds.values()]
    assert counted[0] == counted[1]
    assert len(counted[0]) == 3


def test_the_time_that_a_film_takes_does_not_tell_its_arm(study: readers.Study, address: str) -> None:
    truth, items = answers.truth(study.folder), design.read(study.folder, design.ORDERS)["R1"]
    took: dict[str, list[float]] = {"real": [], "synthetic": []}
    browser = readers.Reader(address)
    item = browser.enter(study.codes["R1"])
    while item["task"] == "authenticity":
        for _ in range(4):
            began = time.perf_counter()
            browser.films(item)
            took[truth[items[item["position"]]["case"]]["arm"]].append(time.perf_counter() - began)
            fresh = browser.ask("/item").json
            item["films"], item["ahead"] = fresh["films"], fresh["ahead"]
        item = browser.answer(item).json
    slower = np.mean(np.array(took["synthetic"])[:, None] > np.array(took["real"])[None])
    assert len(took["real"]) >= 16
    assert 0.1 < slower < 0.9, f"share of pairs in which the synthetic film took longer: {slower:.2f}"


def test_the_server_never_opens_the_truth(study: readers.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open = Path.read_bytes

    def noted(path: Path) -> bytes:
        opened.append(path.name)
        return real_open(path)

    made = server.app(study.folder)
    monkeypatch.setattr(Path, "read_bytes", noted)
    with TestClient(made, base_url=HOME) as client:
        item = enter(client, study.codes["R1"])
        while item["state"] == "item":
            for token in item["films"]:
                client.get(f"/film/{token}")
            item = client.post("/answer", json=body(item)).json()
    assert set(opened) == {f"{film}.png" for one in made.state.running.orders["R1"] for film in one["films"]}
    held = json.dumps([made.state.running.orders, made.state.running.told, dict(made.state.running.tasks)])
    assert not [word for word in ("alphadiff", "betagan", "source", "stratum") if word in held]
    made.state.running.store.close()


# --- who may come in


def test_without_a_code_there_is_nothing(client: TestClient) -> None:
    assert client.get("/item").status_code == 401
    assert client.post("/answer", json={}).status_code == 401
    assert client.get("/film/" + "0" * 32).status_code == 401
    client.cookies.set("session", "0" * 43)
    assert client.get("/item").status_code == 401


def test_wrong_codes_are_limited_and_right_ones_wait_too(client: TestClient, study: readers.Study) -> None:
    for _ in range(access.FAILURES):
        assert client.post("/login", json={"code": "R1-AAAA-AAAA-AAAA"}).status_code == 403
    refused = client.post("/login", json={"code": study.codes["R1"]})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 61


def test_the_limit_ends_and_counts_all_addresses_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limiter = access.Limiter()
    for address in range(access.FAILURES_OF_ALL):
        assert limiter.wait_s("new") == 0
        limiter.failed(f"address {address}")
    assert limiter.wait_s("new") == pytest.approx(access.WINDOW_S)
    now[0] += access.WINDOW_S + 1
    assert limiter.wait_s("new") == 0
    assert limiter.failures == {}


def test_a_code_takes_as_long_for_nobody_as_for_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    monkeypatch.setattr(access, "_scrypt", lambda code, salt: tried.append(salt) or bytes(32))
    assert access.reader_of("R9-AAAA-AAAA-AAAA", {}) is None
    assert access.reader_of("", {}) is None
    assert len(tried) == 2


def test_the_cookie_is_out_of_reach_and_its_session_ends(client: TestClient, study: readers.Study) -> None:
    said = client.post("/login", json={"code": study.codes["R1"]}).headers["set-cookie"]
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in said.split(";")}
    assert "max-age" not in said.lower()
    value = said.partition(";")[0].partition("=")[2]
    assert value.encode() not in b"".join(path.read_bytes() for path in study.folder.glob("answers.sqlite*"))
    assert client.post("/logout", json={}).status_code == 200
    client.cookies.set("session", value)
    assert client.get("/item").status_code == 401


def test_by_https_the_cookie_goes_no_other_way(study: readers.Study) -> None:
    with TestClient(server.app(study.folder, secure=True), base_url="https://127.0.0.1") as client:
        said = client.post("/login", json={"code": study.codes["R1"]}).headers["set-cookie"]
    assert "secure" in said.lower()


@pytest.mark.parametrize("path", ["/", "/item", "/nothing", "/film/x", "/login", "/answer"])
def test_every_response_has_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_loads_nothing_and_runs_no_text() -> None:
    html, policy = server.page()
    script = re.search(r"<script>(.*)</script>", html, re.S)
    assert script is not None
    assert server._hash(script[1]) in policy
    assert not re.search(r"https?://|@import|url\(|<script src|<link rel=\"style", html)
    assert not re.search(r"\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|setTimeout\(\"", html)


@pytest.mark.parametrize(
    "path",
    [
        "/../private/truth.json",
        "/film/../private/truth.json",
        "/film/..%2f..%2fprivate%2ftruth.json",
        "/film/%2e%2e%2fmanifest.json",
        "/films/",
        "/private/truth.json",
        "/manifest.json",
        "/answers.sqlite",
        "/static/study.js",
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/docs",
        "/openapi.json",
        "//etc/passwd",
        "/film/%00",
    ],
)
def test_no_address_leads_to_a_file(study: readers.Study, address: str, path: str) -> None:
    browser = readers.Reader(address)
    browser.enter(study.codes["R1"])
    assert browser.ask(path).status == 404


def test_films_by_their_own_names_are_not_found(client: TestClient, study: readers.Study) -> None:
    enter(client, study.codes["R1"])
    for film in answers.truth(study.folder):
        assert client.get(f"/film/{film}").status_code == 404
        assert client.get(f"/film/{film}.png").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    for path in ("/", "/item", "/answer", "/film/x"):
        assert client.request(method, path).status_code == 405


def test_other_hosts_and_other_pages_are_refused(client: TestClient, study: readers.Study) -> None:
    enter(client, study.codes["R1"])
    assert client.get("/item", headers={"host": "attacker.example"}).status_code == 400
    for host in ("localhost:8765", "127.0.0.1:8765", "[::1]:8765", "192.168.1.5"):
        assert client.get("/item", headers={"host": host}).status_code == 200
    for origin in ("http://attacker.example", "null", "http://127.0.0.1:9999"):
        assert client.post("/logout", json={}, headers={"origin": origin}).status_code == 400
    assert client.post("/logout", json={}, headers={"origin": HOME}).status_code == 200


def test_a_name_that_was_given_is_known(study: readers.Study) -> None:
    with TestClient(server.app(study.folder, hosts=["reads.example.org"]), base_url="https://reads.example.org") as own:
        assert own.get("/").status_code == 200
        assert own.get("/", headers={"host": "localhost"}).status_code == 400


def test_a_name_may_be_given_in_capitals(study: readers.Study) -> None:
    with TestClient(server.app(study.folder, hosts=["Reads.Example.org"]), base_url="https://reads.example.org") as own:
        assert own.get("/").status_code == 200


def test_bodies_are_bounded_and_must_be_json(client: TestClient, study: readers.Study) -> None:
    item = enter(client, study.codes["R1"])
    assert client.post("/answer", content=b"x" * 70_000, headers=REQUEST).status_code == 413
    assert client.post("/answer", content=b"[" * 30_000, headers=REQUEST).status_code == 400
    assert client.post("/answer", content=b"{", headers=REQUEST).status_code == 400
    assert client.post("/answer", content=b"[]", headers=REQUEST).status_code == 422
    assert client.post("/login", data={"code": "x"}).status_code == 415
    assert client.post("/login", files={"file": b"x"}).status_code == 415
    assert client.post("/login", json={"code": 5}).status_code == 422
    for wrong in ({"seconds": -1}, {"seconds": "2"}, {"seconds": None}, {"token": "short"}, {"token": "x/" * 16}):
        assert client.post("/answer", json=body(item, **wrong)).status_code == 422
    many = [{"t": 1, "kind": "zoom", "value": []}] * (server.MOST_EVENTS + 1)
    for events in (many, "x", [1], [{"t": 1, "kind": "<b>"}], [{"t": 1, "kind": "a", "value": ["x"]}], [{"kind": "a"}]):
        assert client.post("/answer", json=body(item, events=events)).status_code == 422
    content = json.dumps(body(item)).replace("2.5", "NaN").encode()
    assert client.post("/answer", content=content, headers=REQUEST).status_code == 422
    assert answers.table(study.folder) == []


# --- where it listens


def test_other_hosts_are_refused_where_films_are_not_open(
    original: readers.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = design.load(original.folder)
    serving.check_host("0.0.0.0", manifest, None)
    for policy in ("credentialed", "unknown"):
        closed = {"arms": [{**arm, "source_policy": policy} for arm in manifest["arms"]]}
        for host in ("127.0.0.1", "localhost", "::1"):
            serving.check_host(host, closed, None)
        for host in ("0.0.0.0", "192.168.0.7", "::", "study.hospital.org"):
            with pytest.raises(ValueError, match=rf"films are not open \(real {policy}.*, got {re.escape(host)}"):
                serving.check_host(host, closed, None)
        with pytest.raises(ValueError, match="a reason of 3 words or more"):
            serving.check_host("0.0.0.0", closed, "because")
        serving.check_host("0.0.0.0", closed, "all readers are credentialed")


def test_there_is_no_sharing(original: readers.Study, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "run", str(original.folder), "--share"])
    assert stopped.value.code == BAD_INPUT
    assert "unrecognized arguments: --share" in capsys.readouterr().err


def test_a_changed_study_is_not_run(study: readers.Study, capsys: pytest.CaptureFixture[str]) -> None:
    path = study.folder / "manifest.json"
    path.write_text(path.read_text().replace('"alpha": 0.05', '"alpha": 0.10'))
    assert cli.main(["study", "run", str(study.folder), "--port", "0"]) == BAD_INPUT
    assert "was changed after it was registered" in capsys.readouterr().err


def test_answers_of_another_manifest_are_refused(study: readers.Study, tmp_path: Path) -> None:
    answers.Store(tmp_path / "answers.sqlite", "0" * 64).close()
    (tmp_path / "answers.sqlite").rename(study.folder / design.ANSWERS)
    with pytest.raises(ValueError, match="holds answers to the manifest 0000"):
        server.app(study.folder)
    with pytest.raises(ValueError, match="holds answers to the manifest 0000"):
        answers.table(study.folder)


def test_answers_are_their_owners_and_written_through(client: TestClient, study: readers.Study) -> None:
    enter(client, study.codes["R1"])
    store = client.app.state.running.store  # type: ignore[attr-defined]
    assert store.db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store.db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in study.folder.glob("answers.sqlite*")} == {0o600}


def test_a_new_code_ends_the_sessions_of_the_old_one(client: TestClient, study: readers.Study) -> None:
    enter(client, study.codes["R1"])
    answers.forget_sessions(study.folder, "R1")
    assert client.get("/item").status_code == 401


def test_a_study_of_all_tasks_and_two_models_is_analysed_by_the_command(
    address: str, study: readers.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both readers call every film synthetic, over HTTP; one of them is left out."""
    for code in study.codes.values():
        reader = readers.Reader(address)
        item = reader.enter(code)
        while item["state"] == "item":
            said = {"call": "synthetic", "confidence": 3} if item["task"] == "authenticity" else {}
            item = reader.answer(item, **said).json
    out = tmp_path / "out"
    words = ["study", "analyse", str(study.folder), "--out", str(out)]
    assert not cli.main([*words, "--exclude", "R2=stopped"])
    found = json.loads((out / "results.json").read_text())
    assert {"authenticity", "quality", "diagnosis", "preference"} <= set(found)
    assert found["authenticity"]["together"]["accuracy"]["value"] == pytest.approx(0.5), "two models, one real set"
    assert found["authenticity"]["together"]["equivalence"]["alpha"] == found["study"]["design"]["alpha"]
    text = (out / "answers.imrmc").read_text()
    assert "R1," in text
    assert "R2," not in text, "excluded readers are left out"
    assert "NR:1" in text
    (given,) = [row for row in found["answers"]["readers"] if row["excluded"]]
    assert given["reader"] == "R2"
    assert "on 12 films that all of them called" in capsys.readouterr().out
    assert cli.main([*words, "--samples", str(tmp_path / "none.parquet")]) == BAD_INPUT
    assert "expected samples.parquet" in capsys.readouterr().err
    assert cli.main([*words, "--confidence-level", "95"]) == BAD_INPUT
    assert "between 0 and 1, got 95" in capsys.readouterr().err


def test_samples_are_of_the_named_model_and_of_synthetic_films(
    study: readers.Study, address: str, tmp_path: Path
) -> None:
    reader = readers.Reader(address)
    item = reader.enter(study.codes["R1"])
    while item["state"] == "item":
        item = reader.answer(item).json
    ids = [one["source_id"] for one in answers.truth(study.folder).values() if one["model"] == readers.MODELS[0]]
    path = tmp_path / "samples.parquet"
    sides = ["synthetic"] * len(ids) + ["real"] * len(ids)
    nothing: list[float | None] = [None] * len(ids)
    pq.write_table(
        pa.table({"set": sides, "id": ids * 2, "near": pa.array([*nothing, *map(float, range(len(ids)))])}), path
    )
    found = results.analyse(study.folder, samples=path, model=readers.MODELS[0])["correlations"]
    assert {row["n"] for row in found} == {0}, "numbers of real films with the same ids are not of these films"
    with pytest.raises(ValueError, match="write --samples MODEL=FILE"):
        results.analyse(study.folder, samples=path, model="nobody")
    assert study_analysis.samples_of(f"alphadiff={path}") == ("alphadiff", path)
    assert study_analysis.samples_of(str(path)) == (None, path)
