"""The judge behind a server, against a real HTTP server on this machine that fails in every way servers do."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthchex import judges, room
from synthchex.data import images, records, shards
from synthchex.judges import endpoint, server, verdicts

sys.path.insert(0, str(room("filtering")))
import filter as room_filter

RUBRICS = room("filtering") / "prompts"
LABELS = [records.labels_dict()] * 12
FAST = {"backoff_s": 0.01, "longest_pause_s": 0.3, "timeout_s": 5.0}
Reply = tuple[int, Any, dict[str, str]]


def completion(text: str, top: dict[str, float] | None = None) -> Reply:
    """An answer of a server; `top` are the log-probabilities of its first token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if top is not None:
        likely = [{"token": token, "logprob": value} for token, value in top.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": likely}]}
    return 200, {"choices": [choice]}, {}


class Served:
    """A server and what it was asked. `reply(body, number)` gives the answer to the request of that number; None closes
    the connection without one.
    """

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply | None]) -> None:
        self.reply, self.bodies, self.headers, self.lock = reply, [], [], threading.Lock()  # type: ignore[var-annotated]
        self.at_once, self.most = 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, *words: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *where: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append((request.path, dict(request.headers)))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        answer = self.reply(body, number)
        with self.lock:
            self.at_once -= 1
        if answer is None:
            request.connection.close()
            return
        status, content, headers = answer
        if isinstance(content, float):
            self.trickle(request, content)
            return
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(payload)

    def trickle(self, request: BaseHTTPRequestHandler, seconds: float) -> None:
        """An answer that never ends: one byte every so many seconds."""
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(40):
            time.sleep(seconds)
            try:
                request.wfile.write(b" ")
            except OSError:
                return


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any], int], Reply | None]], Served]]:
    """Start servers that are stopped at the end."""
    started: list[Served] = []

    def start(reply: Callable[[dict[str, Any], int], Reply | None]) -> Served:
        started.append(Served(reply))
        return started[-1]

    yield start
    for one in started:
        one.http.shutdown()
        one.http.server_close()


Serve = Callable[[Callable[[dict[str, Any], int], "Reply | None"]], Served]


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Films whose grey level is their number, so that a server can say which one it was shown."""
    return [np.full((16, 16), 10 * number, np.uint8) for number in range(12)]


def number_of(body: dict[str, Any]) -> int:
    """Which film a request shows."""
    content = body["messages"][0]["content"]
    head, _, data = content[0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return int(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).flat[0]) // 10


def load(url: str, *, read_out: str = "score", **options: Any) -> server.ServerJudge:
    """A judge at that address."""
    mine = {name: options.pop(name) for name in ("answers", "rubric", "max_new_tokens") if name in options}
    recipe = judges.JudgeRecipe(
        "s", "server", "org/m", read_out=read_out, server={"base_url": url, **FAST, **options}, **mine
    )
    found = judges.load_judge(recipe, rubrics=RUBRICS)
    assert isinstance(found, server.ServerJudge)
    return found


def by_number(body: dict[str, Any]) -> Reply:
    """Scores that differ from film to film."""
    chosen = "ABCD"[number_of(body) % 4]
    return completion(chosen, {letter: math.log(0.6 if letter == chosen else 0.1) for letter in "ABCD"})


def expected(count: int) -> list[str]:
    """The classes that `by_number` gives."""
    return [records.QUALITIES[number % 4] for number in range(count)]


def test_scores_are_the_log_probabilities_of_the_letters(serve: Serve, films: list[np.ndarray]) -> None:
    served = serve(lambda body, number: completion("B", {"B": -0.5, " B": -2.0, "A": -1.5, "ĠD": -3.0, "hello": -4.0}))
    verdict = load(served.url).judge(films[:1], ["mild edema"], LABELS[:1])[0]
    found = {
        "High Quality": math.exp(-1.5),
        "Medium Quality": math.exp(-0.5) + math.exp(-2),
        "Not Relevant": math.exp(-3),
    }
    assert verdict.quality == "Medium Quality"
    assert verdict.details["label_mass"] == pytest.approx(sum(found.values()))
    assert verdict.details["not_in_top_logprobs"] == ["Low Quality"]
    assert verdict.scores["Low Quality"] == 0
    for quality, share in found.items():
        assert verdict.scores[quality] == pytest.approx(share / sum(found.values()))
        assert verdict.details["log_probs"][quality] == pytest.approx(math.log(share))
    body = served.bodies[0]
    assert {key: body[key] for key in ("model", "max_tokens", "logprobs", "top_logprobs", "temperature")} == {
        "model": "org/m", "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 0.0,
    }  # fmt: skip
    text = body["messages"][0]["content"][1]["text"]
    assert "mild edema" in text
    assert "D. Not Relevant" in text
    assert served.headers[0][0] == "/v1/chat/completions"


def test_answers_stand_with_their_films_however_late_they_come(serve: Serve, films: list[np.ndarray]) -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.02 * (12 - number_of(body)))
        return by_number(body)

    served = serve(slow)
    found = load(served.url, concurrency=5).judge(films, ["x"] * 12, LABELS)
    assert [verdict.quality for verdict in found] == expected(12)
    assert len(served.bodies) == 12
    assert 2 <= served.most <= 5, "several at once, and no more than asked for"


def test_a_server_that_fails_in_every_way_loses_no_film(serve: Serve, films: list[np.ndarray]) -> None:
    """Each film's first requests meet another failure: 500, 503, 429, a closed connection, a stall, nonsense."""
    seen: Counter[int] = Counter()
    lock = threading.Lock()

    def failing(body: dict[str, Any], number: int) -> Reply | None:
        film = number_of(body)
        with lock:
            seen[film] += 1
            tries = seen[film]
        if tries > 3:
            return by_number(body)
        kind = (film + tries) % 6
        if kind == 4:
            time.sleep(0.8)
        busy: list[Reply | None] = [
            (500, {"error": "x"}, {}),
            (503, b"busy", {"Retry-After": "0.05"}),
            (429, {"error": "slow down"}, {"Retry-After": formatdate(time.time() + 1, usegmt=True)}),
            None,
            (200, {"choices": []}, {}),
            (200, b"<html>proxy</html>", {}),
        ]
        return busy[kind]

    served = serve(failing)
    judge = load(served.url, timeout_s=0.4)
    found = judge.judge(films, [f"caption {number}" for number in range(12)], LABELS)
    assert [verdict.quality for verdict in found] == expected(12)
    assert set(seen) == set(range(12))
    assert min(seen.values()) >= 4
    assert judge.line.asked >= len(served.bodies) >= 48


def test_a_server_that_stays_down_ends_the_run_with_the_way_to_go_on(serve: Serve, films: list[np.ndarray]) -> None:
    served = serve(lambda body, number: (503, b"down for now", {}))
    judge = load(served.url, retries=2)
    with pytest.raises(
        RuntimeError, match=r"127.0.0.1 failed 3 times for one film, at last with: HTTP 503: down for now"
    ):
        judge.judge(films[:2], ["x"] * 2, LABELS[:2])
    nowhere = load("http://127.0.0.1:9/v1", retries=1)
    with pytest.raises(RuntimeError, match="failed 2 times for one film, at last with: ConnectError"):
        nowhere.judge(films[:1], ["x"], LABELS[:1])


@pytest.mark.parametrize("trickles", [True, False])
def test_a_stalled_answer_is_given_up_even_if_bytes_trickle(
    trickles: bool, serve: Serve, films: list[np.ndarray]
) -> None:
    def stalling(body: dict[str, Any], number: int) -> Reply:
        if trickles:
            return 200, 0.05, {}
        time.sleep(1)
        return by_number(body)

    judge = load(serve(stalling).url, timeout_s=0.15, retries=1)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="Timeout"):
        judge.judge(films[:1], ["x"], LABELS[:1])
    assert time.monotonic() - began < 0.9


def test_retry_after_holds_back_all_questions(serve: Serve, films: list[np.ndarray]) -> None:
    times: list[float] = []

    def limited(body: dict[str, Any], number: int) -> Reply:
        times.append(time.monotonic())
        return by_number(body) if number else (429, b"{}", {"Retry-After": "0.25"})

    found = load(serve(limited).url, concurrency=1).judge(films[:3], ["x"] * 3, LABELS[:3])
    assert [verdict.quality for verdict in found] == expected(3)
    assert times[1] - times[0] >= 0.24


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("900", 60.0), ("-1", 0.0), (None, None), ("soon", None)],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert endpoint.retry_after(header, 60) == seconds
    date = formatdate(time.time() + 30, usegmt=True)
    assert endpoint.retry_after(date, 60) == pytest.approx(29.5, abs=1)


def test_pauses_double_up_to_a_limit_and_are_shortened_at_random() -> None:
    line = endpoint.Line(endpoint.Endpoint("http://localhost/v1", backoff_s=1, longest_pause_s=10))
    for attempt, limit in ((0, 1), (1, 2), (3, 8), (9, 10)):
        pauses = [line._backoff(attempt) for _ in range(300)]
        assert 0 <= min(pauses) < 0.1 * limit
        assert 0.9 * limit < max(pauses) <= limit


def test_a_film_that_the_server_refuses_is_named_and_the_others_are_judged(
    serve: Serve, films: list[np.ndarray]
) -> None:
    served = serve(lambda body, number: (422, b"bad image", {}) if number_of(body) == 1 else by_number(body))
    found = load(served.url).judge(films[:3], ["x"] * 3, LABELS[:3])
    assert [verdict.quality for verdict in found] == ["High Quality", None, "Low Quality"]
    assert (found[1].reason, found[1].details) == ("judge-error-422", {"error": "HTTP 422: bad image"})
    assert len(served.bodies) == 3, "what is refused is not asked again"


def test_a_server_that_refuses_everything_is_an_error(serve: Serve, films: list[np.ndarray]) -> None:
    with pytest.raises(RuntimeError, match="refused all of the first 2 films: HTTP 400: no images"):
        load(serve(lambda body, number: (400, b"no images", {})).url).judge(films[:2], ["x"] * 2, LABELS[:2])
    for status in (401, 404, 302):
        reply: Reply = (status, b"", {"Location": "http://127.0.0.1:9/"})
        with pytest.raises(ValueError, match=f"refuses this judge: HTTP {status}"):
            load(serve(lambda body, number, reply=reply: reply).url).judge(films[:1], ["x"], LABELS[:1])


def test_a_film_does_not_follow_a_redirect(serve: Serve, films: list[np.ndarray]) -> None:
    elsewhere = serve(lambda body, number: by_number(body))
    served = serve(lambda body, number: (307, b"", {"Location": f"{elsewhere.url}/chat/completions"}))
    with pytest.raises(ValueError, match="HTTP 307"):
        load(served.url).judge(films[:1], ["x"], LABELS[:1])
    assert elsewhere.bodies == []


def test_a_server_without_log_probabilities_is_an_error(serve: Serve, films: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"returns no logprobs for org/m; set read_out: generate"):
        load(serve(lambda body, number: completion("A")).url).judge(films[:1], ["x"], LABELS[:1])


@pytest.mark.parametrize(
    ("constraint", "field"),
    [("structured_outputs", "structured_outputs"), ("guided_choice", "guided_choice"),
     ("json_schema", "response_format"), ("json_object", "response_format"), ("regex", "regex")],
)  # fmt: skip
def test_a_constrained_answer_is_one_of_the_choices(
    constraint: str, field: str, serve: Serve, films: list[np.ndarray]
) -> None:
    def obedient(body: dict[str, Any], number: int) -> Reply:
        """What a server does that knows the field: only a choice can come out."""
        found = body[field]
        if constraint == "regex":
            choices = found.strip("()").split("|")
        elif field == "response_format":
            schema = found["json_schema"]["schema"] if constraint == "json_schema" else found["value"]
            assert found["type"] == constraint
            choices = schema["properties"]["answer"]["enum"]
        else:
            choices = found["choice"] if isinstance(found, dict) else found
        chosen = choices[-1]
        return completion(json.dumps({"answer": chosen}) if field == "response_format" else chosen)

    served = serve(obedient)
    judge = load(served.url, read_out="generate", answers="labels", constraint=constraint)
    found = judge.judge(films[:2], ["x"] * 2, LABELS[:2])
    assert [verdict.quality for verdict in found] == ["Not Relevant"] * 2
    assert len(served.bodies) == 3, "one question more, to see that the field is obeyed"
    judge.judge(films[:1], ["x"], LABELS[:1])
    assert len(served.bodies) == 4


def test_a_server_that_ignores_the_constraint_is_found_out_before_any_film(
    serve: Serve, films: list[np.ndarray]
) -> None:
    """vLLM ignores `guided_choice` with HTTP 200 since 0.12; a model may still answer with a letter by itself."""
    served = serve(
        lambda body, number: completion("A" if isinstance(body["messages"][0]["content"], list) else "Hello!")
    )
    judge = load(served.url, read_out="generate", constraint="guided_choice")
    with pytest.raises(ValueError, match=r"ignores constraint 'guided_choice': asked for one of .* got 'Hello!'"):
        judge.judge(films[:1], ["x"], LABELS[:1])
    assert len(served.bodies) == 1


def test_a_broken_constraint_ends_the_run(serve: Serve, films: list[np.ndarray]) -> None:
    served = serve(lambda body, number: completion("indigo" if number == 0 else "I think A"))
    judge = load(served.url, read_out="generate", constraint="structured_outputs")
    with pytest.raises(
        RuntimeError, match=r"broke constraint 'structured_outputs': expected one of .* got 'I think A'"
    ):
        judge.judge(films[:1], ["x"], LABELS[:1])


def test_nonsense_without_a_constraint_is_asked_again_once(serve: Serve, films: list[np.ndarray]) -> None:
    def wordy(body: dict[str, Any], number: int) -> Reply:
        again = "could not be read" in body["messages"][0]["content"][1]["text"]
        return completion({0: "B", 1: "C." if again else "hm", 2: "hm"}[number_of(body)])

    served = serve(wordy)
    found = load(served.url, read_out="generate").judge(films[:3], ["x"] * 3, LABELS[:3])
    assert [verdict.quality for verdict in found] == ["Medium Quality", "Low Quality", None]
    assert found[1].details == {"answer": "C.", "first_answer": "hm", "retried": True}
    assert found[2].reason == "unparsed"
    assert len(served.bodies) == 5


def test_the_published_question_is_sent_as_it_stands(serve: Serve, films: list[np.ndarray]) -> None:
    served = serve(lambda body, number: completion("This is of Low Quality."))
    judge = load(served.url, read_out="published", rubric="published", max_new_tokens=1024)
    assert judge.judge(films[:1], ["edema"], LABELS[:1])[0].quality == "Low Quality"
    text = (RUBRICS / "published.md").read_text().strip().replace("{prompt}", "edema")
    assert served.bodies[0]["messages"][0]["content"][1]["text"] == text
    assert served.bodies[0]["max_tokens"] == 1024


def test_the_key_is_read_from_the_environment_and_no_other_token_is_sent(
    serve: Serve, films: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    served = serve(lambda body, number: by_number(body))
    load(served.url).judge(films[:1], ["x"], LABELS[:1])
    assert "hf_mine" not in str(served.headers)
    with pytest.raises(ValueError, match="key in the environment variable MY_KEY, got nothing there"):
        load(served.url, key_env="MY_KEY").judge(films[:1], ["x"], LABELS[:1])
    monkeypatch.setenv("MY_KEY", "secret")
    judge = load(served.url, key_env="MY_KEY")
    found = judge.judge(films[:1], ["x"], LABELS[:1])
    assert (
        served.headers[-1][1]["authorization" if "authorization" in served.headers[-1][1] else "Authorization"]
        == "Bearer secret"
    )
    assert "secret" not in judges.scores_text(found[0], judge) + str(judge.recipe.hashed())


@pytest.mark.parametrize(
    ("url", "policy", "allow", "words"),
    [
        ("http://api.example.org/v1", "open", False, None),
        ("http://api.example.org/v1", "credentialed", True, "must not be sent to api.example.org"),
        ("http://api.example.org/v1", "unknown", True, "must not be sent to api.example.org"),
        ("http://localhost.example.org/v1", "credentialed", True, "must not be sent"),
        ("http://192.168.0.7:8000/v1", "credentialed", True, "must not be sent"),
        ("http://0.0.0.0:8000/v1", "credentialed", True, "must not be sent"),
        ("http://localhost:8000/v1", "credentialed", False, "pass --allow-local-server"),
        ("http://127.0.0.1:8000/v1", "unknown", False, "pass --allow-local-server"),
        ("http://localhost:8000/v1", "credentialed", True, None),
        ("http://127.0.0.1:8000/v1", "unknown", True, None),
        ("http://[::1]:8000/v1", "credentialed", True, None),
        ("http://localhost:8000/v1", "open", False, None),
    ],
)
def test_films_that_are_not_open_stay_on_this_machine(
    url: str, policy: str, allow: bool, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    why = endpoint.refusal(endpoint.Endpoint(url), policy, allow_local=allow)
    assert (why is None) == (words is None)
    assert words is None or words in str(why)


def test_a_local_server_behind_a_proxy_is_not_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    one = endpoint.Endpoint("http://localhost:8000/v1")
    assert "reached through a proxy" in str(endpoint.refusal(one, "credentialed", allow_local=True))
    monkeypatch.setenv("no_proxy", "localhost")
    assert endpoint.refusal(one, "credentialed", allow_local=True) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_url": "localhost:8000"}, "expected a base_url like"),
        ({"base_url": "http://me:secret@host/v1"}, "without a name or password in it"),
        ({"constraint": "choice"}, "constraint must be one of"),
        ({"concurrency": 0}, "concurrency must be in 1 to 100, got 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"key": "secret"}, r"has unknown keys \['key'\]"),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        judges.JudgeRecipe("s", "server", "m", server={"base_url": "http://localhost/v1", **change})
    assert "secret" not in str(caught.value)


def test_where_a_server_is_reached_does_not_make_it_another_run() -> None:
    here, there = (
        judges.JudgeRecipe("s", "server", "m", server={"base_url": url, "concurrency": count})
        for url, count in (("http://localhost:1/v1", 1), ("http://localhost:2/v1", 9))
    )
    assert here.hashed() == there.hashed()


def filtering(folder: Path, url: str, *, rows: int, policy: str | None = None) -> tuple[list[str], Path]:
    """Films, recipe and arguments of `synthchex filter`."""
    table = "path,prompt\n" + "".join(f"{number}.png,finding {number}\n" for number in range(rows))
    for number in range(rows):
        (folder / f"{number}.png").write_bytes(images.to_png(np.full((16, 16), 10 * number, np.uint8)))
    (folder / "t.csv").write_text(table)
    fast = "".join(f"  {name}: {value}\n" for name, value in FAST.items())
    (folder / "s.yaml").write_text(
        f"name: s\njudge: server\nmodel: m\nserver:\n  base_url: {url}\n  retries: 1\n{fast}"
    )
    arguments = ["--images", str(folder / "t.csv"), "--judge", str(folder / "s.yaml"), "--out", str(folder / "out")]
    return [
        *arguments,
        "--batch-size",
        "3",
        "--quiet",
        *(["--source-policy", policy] if policy else []),
    ], folder / "out"


def test_the_filter_goes_on_where_a_server_went_down_and_every_row_stands_once(serve: Serve, tmp_path: Path) -> None:
    down = threading.Event()

    def dying(body: dict[str, Any], number: int) -> Reply:
        if number >= 7 and not down.is_set():
            return 503, b"down", {}
        return by_number(body)

    served = serve(dying)
    arguments, out = filtering(tmp_path, served.url, rows=12, policy="open")
    with pytest.raises(RuntimeError, match="run the same command to go on"):
        room_filter.main(arguments)
    done = {path.name for path in (out / "data").glob("*.parquet")}
    assert len(done) == 2, "two batches of three are safe, the third is not written in part"
    down.set()
    again = len(served.bodies)
    assert room_filter.main(arguments) == 0
    rows = shards.Rows(shards.parquet_files(out))
    assert rows.column("prompt") == [f"finding {number}" for number in range(12)]
    assert rows.column("quality") == expected(12)
    assert {number_of(body) for body in served.bodies[again:]} == set(range(6, 12)), (
        "what is written is not asked again"
    )
    stored = json.loads(rows.column("quality_scores")[5])
    assert stored["judged_by"]["rubric_hash"] == judges.rubric_hash(judges.read_rubric("quality", RUBRICS))
    assert stored["log_probs"]["Medium Quality"] == pytest.approx(math.log(0.6), abs=1e-6)
    assert rows.column("judge")[0].startswith("s @main rubric:")


def test_the_filter_refuses_a_server_for_films_that_are_not_open(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(lambda body, number: by_number(body))
    arguments, out = filtering(tmp_path, served.url, rows=2)
    assert room_filter.main(arguments) == 3
    assert "source policy of these films is unknown" in capsys.readouterr().err
    assert not out.exists()
    assert room_filter.main([*arguments, "--source-policy", "credentialed"]) == 3
    assert served.bodies == []
    assert room_filter.main([*arguments, "--source-policy", "credentialed", "--allow-local-server"]) == 0
    assert len(served.bodies) == 2


def test_rows_that_say_credentialed_cannot_be_called_open(serve: Serve, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    served = serve(lambda body, number: by_number(body))
    arguments, _ = filtering(tmp_path, served.url, rows=1)
    row = {"image": {"bytes": images.to_png(np.zeros((8, 8), np.uint8)), "path": "0.png"}, "prompt": "x"}
    pq.write_table(pa.Table.from_pylist([row | {"source_policy": "credentialed"}]), tmp_path / "t.parquet")
    arguments[1] = str(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="says that its films are credentialed, got --source-policy open"):
        room_filter.main([*arguments, "--source-policy", "open"])
    assert room_filter.main(arguments) == 3
    assert served.bodies == []


def test_an_unreadable_answer_is_a_row_of_its_own(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(lambda body, number: completion("?", {"x": -1.0}) if number_of(body) == 1 else by_number(body))
    arguments, out = filtering(tmp_path, served.url, rows=3, policy="open")
    assert room_filter.main([*arguments, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["quality"] == {"High Quality": 1, "unanswered": 1, "Low Quality": 1}
    assert counts["drop_reasons"] == {"unparsed": 1, "low_quality": 1}
    assert counts["judges"] == {"retried": 1}
    assert shards.Rows(shards.parquet_files(out)).column("quality")[1] is None


def test_a_verdict_is_json_without_infinities() -> None:
    text = judges.scores_text(verdicts.best(dict.fromkeys(records.QUALITIES, 0.25), log_probs={"a": -math.inf}))
    assert json.loads(text)["log_probs"] == {"a": None}
