"""A dataset to the Hub: what is sent, that it loads back, that it is sent once, and what is never sent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import runpy
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

sys.path.insert(0, str(Path(__file__).parent))
import localhub

import synthchex
from synthchex.commands import cards, publish, staging
from synthchex.data import images, parquet, records, shards
from synthchex.gate.release import Terms
from synthchex.options import REFUSED

WORKER = """
import contextlib, io, json, sys
from synthchex import options
from synthchex.commands import publish
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = options.run(publish.main, json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
PIXELS = """
import hashlib, json, sys
import numpy as np
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train", streaming=len(sys.argv) > 2)
said = [[r["filename"], r["prompt"], r["labels_dict"], hashlib.sha256(np.asarray(r["image"]).tobytes()).hexdigest()]
        for r in rows]
print(json.dumps([list(rows.features), str(rows.features["image"]), str(rows.features["labels_dict"]), said]))
"""
Push = Callable[..., tuple[int, str, str]]


def real_film(seed: int) -> np.ndarray:
    """A smooth film."""
    coarse = np.random.default_rng(seed).random((6, 6), np.float32)
    return (
        np.asarray(Image.fromarray(255 * coarse).resize((64, 64), Image.Resampling.BICUBIC))
        .clip(0, 255)
        .astype(np.uint8)
    )


def new_film(seed: int) -> np.ndarray:
    """A film of squares, like no smooth one."""
    return np.kron(np.random.default_rng(seed).integers(0, 256, (16, 16)), np.ones((4, 4))).astype(np.uint8)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 real films, the fewest that the gate takes."""
    folder = tmp_path_factory.mktemp("real")
    for seed in range(20):
        (folder / f"p100000{seed:02d}.png").write_bytes(images.to_png(real_film(seed)))
    return folder


def build(folder: Path, films: Sequence[np.ndarray], shard_rows: int = 5) -> Path:
    """A dataset as `synthchex build` writes it, with MIMIC-CXR's names and in shards of 5."""
    sources, out = folder / "films", folder / "set"
    sources.mkdir(parents=True)
    lines = ["path,prompt,Edema"]
    for place, film in enumerate(films):
        (sources / f"s500000{place:02d}.png").write_bytes(images.to_png(film))
        lines.append(f"films/s500000{place:02d}.png,Mild edema number {place}.,{(1, 0, -1, '')[place % 4]}")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    script = runpy.run_path(str(synthchex.room("datasets_scripts") / "build.py"))
    script["main"].__globals__["SHARD_ROWS"] = shard_rows
    script["main"](["--images", str(folder / "films.csv"), "--out", str(out), "--title", "Squares", "--quiet"])
    return out


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Twelve new films in three shards."""
    return build(tmp_path, [new_film(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def hub() -> Iterator[localhub.Hub]:
    with localhub.serve() as running:
        yield running


def bare(content: bytes) -> bytes:
    """All that a file says, Parquet without its compression: rows, films, schema, statistics, writer."""
    if not content.startswith(b"PAR1"):
        return content
    file = pq.ParquetFile(io.BytesIO(content))
    plain = io.BytesIO()
    pq.write_table(file.read(), plain, compression="none", use_dictionary=False, write_statistics=False)
    return f"{file.metadata.to_dict()} {file.metadata.metadata}".encode() + plain.getvalue()


def environment(hub: localhub.Hub, home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE") and key != "HF_TOKEN"}
    given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return {**kept, **given, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="module")
def push(hub: localhub.Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Push]:
    """The command in a process that knows the local hub; started once for all."""
    settings = environment(hub, tmp_path_factory.mktemp("home"))
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
    ) as worker:

        def run(*arguments: object) -> tuple[int, str, str]:
            assert worker.stdin
            assert worker.stdout
            worker.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
            worker.stdin.flush()
            code, out, err = json.loads(worker.stdout.readline())
            return code, out, err

        yield run
        assert worker.stdin
        worker.stdin.close()


def usual(made: Path, real: Path, *more: object, repo: str = "clinic/squares") -> list[object]:
    gate = ["--real", real, "--encoder", "phantom", "--copies", 1, "--source-policy", "open", "--num-workers", 0]
    return [made, "--repo", repo, *gate, "--quiet", *more]


def here(*arguments: object) -> int:
    """The command in this process, which is offline."""
    return publish.main([str(argument) for argument in arguments])


# What is sent --------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_every_file_and_its_size_and_needs_no_network(
    made: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here(*usual(made, real, "--dry-run", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    names = [f"data/train-0000{shard}-of-00003.parquet" for shard in range(3)]
    assert list(said["files"]) == ["README.md", *names, "samples.png"]
    work = made.with_name("set.publish")
    assert {name: said["files"][name] for name in names} == {name: (work / name).stat().st_size for name in names}
    assert here(*usual(made, real, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert f"would push 5 files, {sum(said['files'].values()):,} B, to clinic/squares; nothing was sent" in out


def test_what_stays_here_is_its_owner_s_only(made: Path, real: Path) -> None:
    assert here(*usual(made, real, "--dry-run")) == 0
    work = made.with_name("set.publish")
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert [stat.S_IMODE((work / name).stat().st_mode) for name in ("secret", "names.csv")] == [0o600, 0o600]
    mapping = dict(line.split(",") for line in (work / "names.csv").read_text().splitlines())
    assert mapping.pop("published") == "here"
    assert list(mapping.values()) == [f"films_s500000{place:02d}.png" for place in range(12)]
    held = [pq.read_table(path) for path in sorted(work.glob("data/*.parquet"))]
    assert [name for table in held for name in table["filename"].to_pylist()] == [f"{name}.png" for name in mapping]


@pytest.fixture(scope="module")
def pushed(push: Push, hub: localhub.Hub, real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that was pushed."""
    made = build(tmp_path_factory.mktemp("pushed"), [new_film(seed) for seed in range(12)])
    code, out, err = push(*usual(made, real, "--message", "first try"))
    assert (code, err) == (0, "")
    assert 'load_dataset("clinic/squares")' in out
    return made


def test_a_push_is_private_whole_tagged_and_tells_nothing_of_where_films_came_from(
    pushed: Path, hub: localhub.Hub
) -> None:
    held = hub.dataset("clinic/squares")
    work = pushed.with_name("set.publish")
    staged = {f"data/{path.name}": path.read_bytes() for path in work.glob("data/*")}
    assert {name: content for name, content in held.files.items() if name.startswith("data/")} == staged
    assert (held.private, held.tags) == (True, {"v1": held.head})
    everything = b"".join(bare(content) for content in held.files.values())
    for secret in (b"s500000", b"p100000", (work / "secret").read_bytes(), str(pushed.parent).encode()):
        assert secret not in everything
    card = cards.read(held.files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert card.data.configs == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    for text in ("# Squares", 'load_dataset("clinic/squares", split="train")', "## Privacy gate", "| crop 5 % |"):
        assert text in card.text
    assert re.search(r"## Changelog\n\n- v1 \(\d{4}-\d\d-\d\d\): 12 films; first try\n", card.text)


def leaky(folder: Path) -> Path:
    """A dataset as others write one: names in the films' files, in columns, in the schema and in the card."""
    shard = next(folder.glob("data/*.parquet"))
    rows = pq.read_table(shard).to_pylist()
    for place, row in enumerate(rows):
        said = PngInfo()
        said.add_text("report", f"film of p100000{place:02d} in /home/jane/mimic")
        buffer = io.BytesIO()
        Image.open(io.BytesIO(row["image"]["bytes"])).save(buffer, "PNG", pnginfo=said)
        row["image"] = {"bytes": buffer.getvalue() + b"p10000099", "path": f"/home/jane/p100000{place:02d}.png"}
        row |= {"subject_id": 10000000 + place, "source_policy": "open", "model": "/home/jane/models/sana"}
    frame = pa.Table.from_pylist(rows)
    kinds = records.features(provenance=False) | {"subject_id": datasets.Value("int64")}
    kinds |= {name: datasets.Value("string") for name in ("source_policy", "model")}
    schema = datasets.Features(kinds).arrow_schema
    frame = frame.cast(schema).replace_schema_metadata(
        {**schema.metadata, "pandas": '{"from": "/home/jane/p10000001"}'}
    )
    pq.write_table(frame, shard)
    (folder / "samples.png").write_bytes(b"a picture of p10000001")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nMade by /home/jane/models/sana.\n")
    return folder


def test_nothing_of_what_others_put_beside_the_pixels_leaves(
    push: Push, hub: localhub.Hub, real: Path, tmp_path: Path
) -> None:
    made = leaky(build(tmp_path, [new_film(seed) for seed in range(4)]))
    before = b"".join(bare(path.read_bytes()) for path in [*made.glob("data/*"), made / "README.md"])
    code, _, err = push(*usual(made, real, repo="clinic/leaky"))
    assert (code, err) == (0, "")
    sent = hub.dataset("clinic/leaky").files
    after = b"".join(map(bare, sent.values()))
    for secret in (b"/home/jane", b"p100000", b"s500000", b"subject_id", b"source_policy", b"pandas"):
        assert (secret in before, secret in after) == (True, False), secret
    (table,) = [pq.read_table(io.BytesIO(content)) for name, content in sent.items() if name.endswith(".parquet")]
    assert table.column_names == ["image", "filename", "prompt", "labels_dict", "model"]
    assert set(table["model"].to_pylist()) == {"sana"}
    assert "Made by sana." in sent["README.md"].decode()


def test_films_of_a_closed_source_change_places_and_keep_their_rows(made: Path, tmp_path: Path) -> None:
    staged = staging.stage(made, tmp_path / "work", Terms("credentialed", "from-labels"), [], quiet=True)
    lines = (tmp_path / "work" / "names.csv").read_text().splitlines()[1:]
    order = {f"{line.split(',')[0]}.png": place for place, line in enumerate(lines)}
    for shard, path in enumerate(staged.files.values()):
        rows = pq.read_table(path).to_pylist()
        places = [order[row["filename"]] for row in rows]
        assert sorted(places) == list(range(12))[5 * shard : 5 * shard + 5]
        assert [row["filename"] for row in rows] == sorted(row["filename"] for row in rows)
        for row, place in zip(rows, places, strict=True):
            assert (images.read(row["image"]["bytes"]).pixels == new_film(place)).all()
            assert row["labels_dict"]["Edema"] == (1, 0, -1, None)[place % 4]


def test_two_processes_that_push_the_same_make_one_commit(
    push: Push, hub: localhub.Hub, real: Path, made: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "synthchex.cli", "publish", *map(str, usual(made, real, repo="clinic/twice"))]
    with subprocess.Popen(words, env=environment(hub, tmp_path / "home"), stderr=subprocess.PIPE, text=True) as other:
        code, _, err = push(*usual(made, real, repo="clinic/twice"))
        said = other.communicate(timeout=120)[1]
    assert (code, err, other.returncode, said) == (0, "", 0, "")
    held = hub.dataset("clinic/twice")
    assert (len(held.commits), held.tags) == (2, {"v1": held.head})


def test_a_second_push_sends_nothing(pushed: Path, push: Push, hub: localhub.Hub, real: Path) -> None:
    puts, commits = hub.puts(), len(hub.dataset("clinic/squares").commits)
    code, out, _ = push(*usual(pushed, real, "--message", "second try"))
    assert (code, out) == (0, "clinic/squares has all of it already (v1); nothing was sent\n")
    assert (hub.puts(), len(hub.dataset("clinic/squares").commits)) == (puts, commits)


@pytest.mark.parametrize("streaming", [(), ("streaming",)], ids=["download", "streaming"])
def test_load_dataset_gives_the_same_rows_and_pixels(
    pushed: Path, hub: localhub.Hub, tmp_path: Path, streaming: tuple[str, ...]
) -> None:
    settings = environment(hub, tmp_path)
    command = [sys.executable, "-c", PIXELS, "clinic/squares", *streaming]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=tmp_path, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    columns, image, labels, rows = json.loads(done.stdout.splitlines()[-1])
    assert columns == ["image", "filename", "prompt", "labels_dict"]
    assert image.startswith("Image(")
    assert labels.count("Value('int8')") == len(records.LABELS)
    assert [row[1] for row in rows] == [f"Mild edema number {place}." for place in range(12)]
    assert [row[2]["Edema"] for row in rows] == [1, 0, -1, None] * 3
    assert [row[3] for row in rows] == [hashlib.sha256(new_film(seed).tobytes()).hexdigest() for seed in range(12)]
    mapping = (pushed.with_name("set.publish") / "names.csv").read_text().splitlines()[1:]
    assert [row[0] for row in rows] == [f"{line.split(',')[0]}.png" for line in mapping]


def test_a_later_push_keeps_what_others_wrote_in_the_card_and_takes_old_shards_away(
    push: Push, hub: localhub.Hub, real: Path, tmp_path: Path
) -> None:
    repo = "clinic/edited"
    first = build(tmp_path / "a", [new_film(seed) for seed in range(12)])
    assert push(*usual(first, real, repo=repo))[0] == 0
    held = hub.dataset(repo)
    theirs = held.files["README.md"].decode()
    theirs = theirs.replace("license: apache-2.0", "license: cc-by-4.0\nlanguage:\n- en")
    theirs = theirs.replace("- synthetic\n", "- synthetic\n- ours\n").replace("# Squares", "# Old title", 1)
    head, _, body = theirs.partition("---\n\n")
    held.commit(
        {**held.files, "README.md": f"{head}---\n\nOur preface.\n\n{body}\n## How to cite\n\nCite us.\n".encode()}
    )
    second = build(tmp_path / "b", [new_film(seed) for seed in range(7)])
    code, out, err = push(*usual(second, real, "--tag", "2.0", "--json", repo=repo))
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert {(change["action"], change["path"]) for change in said["changed"]} == {
        ("replace", "README.md"),
        ("replace", "samples.png"),
        *(("add", f"data/train-0000{shard}-of-00002.parquet") for shard in range(2)),
        *(("delete", f"data/train-0000{shard}-of-00003.parquet") for shard in range(3)),
    }
    card = cards.read(held.files["README.md"].decode())
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en"])
    assert {"ours", "synthetic"} <= set(card.data.tags)
    assert card.text.lstrip().startswith("Our preface.")
    assert card.text.rstrip().endswith("## How to cite\n\nCite us.")
    assert "# Old title" not in card.text
    assert [line.split(" ")[0] for line in cards.changelog(str(card))] == ["2.0", "v1"]
    assert list(held.tags) == ["v1", "2.0"]
    third = build(tmp_path / "c", [new_film(seed) for seed in range(8)])
    code, _, err = push(*usual(third, real, "--tag", "2.0", repo=repo))
    assert (code, "--tag must be new, got 2.0, which the changelog of clinic/edited has already" in err) == (2, True)


def test_a_pull_request_and_a_branch_leave_main_alone(
    push: Push, hub: localhub.Hub, real: Path, made: Path, tmp_path: Path
) -> None:
    repo = "clinic/branched"
    code, out, err = push(*usual(made, real, "--create-pr", "--json", repo=repo))
    assert (code, err) == (0, "")
    held = hub.dataset(repo)
    assert json.loads(out)["url"] == f"{hub.url}/datasets/{repo}/discussions/1"
    assert (list(held.files), held.tags) == ([".gitattributes"], {})
    assert push(*usual(made, real, "--revision", "next", repo=repo))[0] == 0
    assert list(held.files) == [".gitattributes"]
    assert "README.md" in held.commits[held.branches["next"]]


# Trouble -------------------------------------------------------------------------------------------------------------


def test_a_busy_or_silent_hub_is_asked_again(push: Push, hub: localhub.Hub, real: Path, made: Path) -> None:
    for pattern, status in (("repos/create", 503), ("PUT /lfs/", 500), ("/commit/", localhub.DROPPED)):
        hub.fail(pattern, status=status, times=2)
    code, _, err = push(*usual(made, real, repo="clinic/busy"))
    assert (code, err) == (0, "")
    troubled = [(path, status) for _, path, status in hub.requests if status in (500, 503, localhub.DROPPED)]
    assert len(troubled) == 6
    assert len(hub.dataset("clinic/busy").commits) == 2


SILENT = """
import sys, time
from synthchex.commands import uploads
uploads.SILENT_S, began = 1.0, time.monotonic()
to = uploads.Destination("clinic/silent")
uploads.prepare(to)
made = uploads.push(to, {"README.md": b"# Hi"}, "films", seen=uploads.state(to))
print(made.url, time.monotonic() - began)
"""


def test_requests_that_nobody_answers_are_asked_again(hub: localhub.Hub, tmp_path: Path) -> None:
    for pattern in ("repos/create", "GET /api/datasets/clinic/silent$", "/commit/"):
        hub.fail(pattern, status=localhub.SILENT, times=1)
    done = subprocess.run(
        [sys.executable, "-c", SILENT], capture_output=True, text=True, env=environment(hub, tmp_path), timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    url, seconds = done.stdout.split()
    assert url.startswith(hub.url)
    assert float(seconds) < localhub.SILENT_S
    assert hub.dataset("clinic/silent").files["README.md"] == b"# Hi"


FIRST = """
import json, os, sys, time
import datasets
for time_of in range(2):  # the first imports what it needs
    began = time.process_time()
    row = next(iter(datasets.load_dataset(sys.argv[1], split="train", streaming=True)))
print(json.dumps([time.process_time() - began, row["image"].size, row["prompt"]]), flush=True)
os._exit(0)  # Arrow's threads, whose stream was left half read, may fail while Python ends
"""


def test_streaming_gives_the_first_row_at_once_and_reads_no_whole_file(
    pushed: Path, hub: localhub.Hub, tmp_path: Path
) -> None:
    before = len(hub.requests)
    command = [sys.executable, "-c", FIRST, "clinic/squares"]
    settings = environment(hub, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    seconds, size, prompt = json.loads(done.stdout.splitlines()[-1])
    assert (size, prompt) == ([64, 64], "Mild edema number 0.")
    assert seconds < 2, f"{seconds:.2f} CPU seconds to the first row"
    asked = hub.requests[before:]
    assert len(asked) < 40
    assert all("train-00000" in path for _, path, status in asked if status == 206)


@pytest.mark.parametrize(
    ("token", "gated", "message"),
    [("", False, "doesn't exist on the Hub or cannot be accessed"), (localhub.READER, True, "is a gated dataset")],
    ids=["private", "gated"],
)
def test_a_dataset_that_may_not_be_read_says_so(
    pushed: Path, hub: localhub.Hub, tmp_path: Path, token: str, gated: bool, message: str
) -> None:
    held = hub.dataset("clinic/squares")
    settings = {**environment(hub, tmp_path), "HF_TOKEN": token}
    held.gated = gated
    try:
        done = subprocess.run(
            [sys.executable, "-c", FIRST, "clinic/squares"], capture_output=True, text=True, env=settings, timeout=120,
            check=False,
        )  # fmt: skip
    finally:
        held.gated = False
    assert done.returncode != 0
    assert message in done.stderr


PUSH_SCORES = """
import json, sys
from synthchex.commands import push_results
from synthchex import options
results = json.loads(sys.argv[1])
sys.exit(options.run(lambda _: print(push_results.push(results, "clinic/model", "clinic/bench"))))
"""


def test_scores_go_to_the_page_of_a_model(hub: localhub.Hub, tmp_path: Path) -> None:
    row = {"metric": "fid", "encoder": "phantom", "label": "all", "value": 12.5, "interval": [11.0, 14.0]}
    row |= {"floor": 3.0, "n_synthetic": 50, "n_real": 40}
    results = json.dumps({"overall": [row], "created": "2026-01-02T03:04:05", "protocol": "synthchex-1"})
    run = partial(
        subprocess.run, [sys.executable, "-c", PUSH_SCORES, results], capture_output=True, text=True, timeout=60,
        env=environment(hub, tmp_path), check=False,
    )  # fmt: skip
    missing = run()
    assert (missing.returncode, "expected the model clinic/model on the Hub, got none" in missing.stderr) == (2, True)
    made = hub.repositories["models", "clinic/model"] = localhub.Repository()
    made.commit({".gitattributes": b""})
    done = run()
    assert done.returncode == 0, done.stderr
    (entry,) = yaml.safe_load(made.files[".eval_results/bench.yaml"])
    assert entry["dataset"] == {"id": "clinic/bench", "task_id": "fid-phantom"}
    assert entry["value"] == 12.5


def test_a_push_that_is_killed_goes_on_where_it_was(
    push: Push, hub: localhub.Hub, real: Path, made: Path, tmp_path: Path
) -> None:
    repo = "clinic/killed"
    assert here(*usual(made, real, "--dry-run", repo=repo)) == 0
    staged = sorted(made.with_name("set.publish").glob("data/*.parquet"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in staged]
    hub.hold(f"PUT /lfs/{hashes[1]}")
    before = len(hub.puts())
    words = [sys.executable, "-m", "synthchex.cli", "publish", *map(str, usual(made, real, repo=repo))]
    with subprocess.Popen(words, env=environment(hub, tmp_path / "home"), stderr=subprocess.DEVNULL) as running:
        assert hub.held.wait(120)
        deadline = time.monotonic() + 60
        while len(hub.puts()) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.kill()
    hub.waiting = None
    hub.released.set()
    sent = hub.puts()[before:]
    assert {path.rpartition("/")[2] for path in sent} >= {hashes[0], hashes[2]}
    assert list(hub.dataset(repo).files) == [".gitattributes"]
    again = len(hub.puts())
    assert push(*usual(made, real, repo=repo))[0] == 0
    assert [path.rpartition("/")[2] for path in hub.puts()[again:]] == [hashes[1]]
    assert sum(name.startswith("data/") for name in hub.dataset(repo).files) == 3


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        (("repos/create", 403, ""), 2, "error: this token may not write to clinic/refused"),
        (("GET /api/datasets", 403, "GatedRepo"), 2, "error: clinic/refused is gated and this token has no access"),
        (("GET /api/datasets", 404, "RepoNotFound"), 2, "error: expected the dataset clinic/refused, got none, or"),
        (("/commit/", 412, ""), 2, "error: somebody has changed clinic/refused in the meantime; run the same command"),
        (("/commit/", 400, ""), 2, "error: the Hub refused clinic/refused"),
    ],
    ids=["forbidden", "gated", "private", "changed", "refused"],
)  # fmt: skip
def test_refusals_say_what_they_mean(
    push: Push, hub: localhub.Hub, real: Path, made: Path, trouble: tuple[str, int, str], code: int, message: str
) -> None:
    pattern, status, slug = trouble
    hub.fail(pattern, status=status, code=slug, times=1)
    done = push(*usual(made, real, repo="clinic/refused"))
    assert (done[0], len(done[2].splitlines())) == (code, 1), done
    assert message in done[2]


def test_a_public_repository_is_not_pushed_to_unasked(push: Push, hub: localhub.Hub, real: Path, made: Path) -> None:
    repo = "clinic/open"
    assert push(*usual(made, real, "--public", repo=repo))[0] == 0
    assert not hub.dataset(repo).private
    code, _, err = push(*usual(made, real, repo=repo))
    assert (code, "clinic/open is public and was to be private; make it private on the Hub, or" in err) == (2, True)


# The gate ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """Six new films and a copy of a real one."""
    return build(tmp_path, [*[new_film(seed) for seed in range(6)], real_film(3)[:, ::-1]])


def test_a_copy_of_a_real_film_stops_everything(push: Push, hub: localhub.Hub, leaking: Path, real: Path) -> None:
    code, out, err = push(*usual(leaking, real, repo="clinic/leak"))
    assert (code, out) == (REFUSED, "")
    assert err.startswith(
        "refused: near-copies of real films, by looks: 1. Nothing was sent. Mend the dataset, leave out 1"
    )
    assert ("datasets", "clinic/leak") not in hub.repositories


def test_flagged_rows_can_be_left_out(leaking: Path, real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(*usual(leaking, real, "--dry-run", "--drop-flagged", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 6
    held = [pq.read_table(path) for path in sorted(leaking.with_name("set.publish").glob("data/*.parquet"))]
    assert [len(table) for table in held] == [5, 1]


def test_findings_can_be_allowed_with_a_reason_that_the_card_shows(
    push: Push, hub: localhub.Hub, leaking: Path, real: Path
) -> None:
    code, _, err = push(*usual(leaking, real, "--allow-findings", "this film is my own", repo="clinic/allowed"))
    assert (code, err) == (0, "")
    card = hub.dataset("clinic/allowed").files["README.md"].decode()
    assert "**The gate refused this dataset and was overridden.** Reason given: this film is my own" in card
    assert "- near-copies of real films, by looks: 1" in card


def test_without_real_films_nothing_leaves(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(made, "--repo", "clinic/x", "--source-policy", "open", "--dry-run", "--quiet") == REFUSED
    assert "copies of real films were not looked for: give the local real films" in capsys.readouterr().err


def test_prompts_of_a_credentialed_source_leave_as_labels_only(
    made: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = [word if word != "open" else "credentialed" for word in usual(made, real, "--dry-run")]
    assert here(*closed) == REFUSED
    assert (
        "prompts of a source that is credentialed: withhold them, or make them from labels" in capsys.readouterr().err
    )
    for choice, prompt in (("withhold", None), ("from-labels", "Chest radiograph. Findings: edema.")):
        assert here(*closed, "--prompts", choice) == 0
        first = pq.read_table(made.with_name("set.publish") / "data" / "train-00000-of-00003.parquet")
        assert prompt in first["prompt"].to_pylist()
        assert "Mild edema" not in str(first["prompt"].to_pylist())


def test_reports_are_read_from_tables(
    made: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path / "more", [new_film(0)])
    rows = pq.read_table(next(folder.glob("data/*.parquet"))).to_pylist()
    rows[0]["prompt"] = "A nasogastric tube is coiled in the upper part of the stomach."
    schema = records.features(provenance=False).arrow_schema
    shards.write_table(next(folder.glob("data/*.parquet")), pa.Table.from_pylist(rows, schema=schema))
    (tmp_path / "reports.csv").write_text(f"report\n{rows[0]['prompt']}\n\n")
    words = usual(folder, real, "--dry-run", "--reports", tmp_path / "reports.csv")
    assert here(*words) == REFUSED
    assert "texts with 8 words in a row from a local report: 1 rows" in capsys.readouterr().err


def test_what_rows_say_of_their_source_is_not_loosened(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mimic").mkdir()
    table = pq.read_table(next(made.glob("data/*.parquet")))
    pq.write_table(
        table.append_column("source_policy", pa.array(["credentialed"] * len(table))), tmp_path / "mimic" / "0.parquet"
    )
    options = publish.parser().parse_args([str(made), "--repo", "a/b", "--real", str(tmp_path / "mimic")])
    assert publish.source_policy(options) == "credentialed"
    options.source_policy = "open"
    with pytest.raises(ValueError, match="--source-policy must be credentialed, as the rows say, got open; leave"):
        publish.source_policy(options)
    assert publish.source_policy(publish.parser().parse_args([str(made), "--repo", "a/b"])) == "unknown"


def test_open_real_films_do_not_make_prompts_open(made: Path, tmp_path: Path) -> None:
    table = pq.read_table(next(made.glob("data/*.parquet")))
    said = table.append_column("source_policy", pa.array(["open"] * len(table)))
    pq.write_table(said, tmp_path / "nih.parquet")
    options = publish.parser().parse_args([str(made), "--repo", "a/b", "--real", str(tmp_path / "nih.parquet")])
    assert publish.source_policy(options) == "unknown"
    options.source_policy = "open"
    assert publish.source_policy(options) == "open"


# Parts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--repo", "squares"], "--repo must be org/name, got 'squares'"),
        (["--repo", "a/b", "--allow-findings", "because"], "--allow-findings needs a reason .*, got 'because'"),
        (["--repo", "a/b", "--message", "films of p10000032"], "that name nobody, got MIMIC-CXR subject; say it oth"),
        (["--repo", "a/b", "--create-pr", "--revision", "next"], "--create-pr opens a request against main, got --rev"),
    ],
)  # fmt: skip
def test_options_are_checked_before_anything_is_read(tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        publish.main([str(tmp_path), *more])


def test_a_folder_without_shards_or_card_is_refused(made: Path, real: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected Parquet shards in .*empty, found none"):
        here(tmp_path / "empty", "--repo", "a/b", "--dry-run")
    (made / "README.md").unlink()
    with pytest.raises(ValueError, match=r"expected a card, got no .*README.md; `synthchex build` writes one"):
        here(*usual(made, real, "--dry-run"))


def test_offline_is_said_before_the_gate_looks(made: Path, real: Path) -> None:
    with pytest.raises(ValueError, match="expected to reach the Hub, got HF_HUB_OFFLINE=1; unset it, or use --dry-run"):
        here(*usual(made, real))


def test_a_card_that_names_somebody_is_not_sent(made: Path, real: Path) -> None:
    path = made / "README.md"
    path.write_text(path.read_text() + "\nThanks to patient00001.\n")
    with pytest.raises(
        ValueError, match="expected a card that names nobody, got CheXpert patient in it; mend its text"
    ):
        here(*usual(made, real, "--dry-run"))


def test_staging_goes_on_and_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    terms, work = Terms("open"), tmp_path / "work"
    first = staging.stage(made, work, terms, [], quiet=True)
    content = {name: path.read_bytes() for name, path in first.files.items()}
    kept, lost = list(first.files.values())[:2]
    untouched = kept.stat().st_mtime_ns
    lost.unlink()
    again = staging.stage(made, work, terms, [], quiet=True)
    assert {name: path.read_bytes() for name, path in again.files.items()} == content
    assert kept.stat().st_mtime_ns == untouched
    other = staging.stage(made, tmp_path / "other", terms, [], quiet=True)
    assert all(path.read_bytes() != content[name] for name, path in other.files.items())
    fewer = staging.stage(made, work, terms, range(5), quiet=True)
    assert (fewer.rows, len(fewer.files)) == (7, 2)
    assert not kept.exists()
    with pytest.raises(ValueError, match="expected rows to publish, got 12 rows of which 12 are left out"):
        staging.stage(made, work, terms, range(12), quiet=True)


def test_a_work_folder_that_is_a_file_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        PermissionError, match=r"expected a private folder that can be written, got .*choose another --wo"
    ):
        staging.private_key(tmp_path / "file")


def test_a_work_folder_with_files_of_others_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "films.parquet").write_text("mine")
    for folder in (tmp_path / "mine", made):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(PermissionError, match=r"expected an empty folder, or one that publish made, got .*choose"):
            staging.stage(made, folder, Terms("open"), [], quiet=True)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_staging_writes_short_row_groups_and_leaves_nothing_half_made(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(staging, "HELD", 1)
    staged = staging.stage(made, work, Terms("unknown", "withhold"), [], quiet=True, num_workers=2)
    groups = [pq.ParquetFile(path).metadata.num_row_groups for path in staged.files.values()]
    assert (groups, staged.rows) == ([3, 3, 1], 12)
    first = next(iter(staged.files.values()))
    content = first.read_bytes()
    first.unlink()
    with monkeypatch.context() as broken:
        broken.setattr(staging, "_mixed", lambda rows, mix: iter([{"image": object()}]))
        with pytest.raises(pa.ArrowTypeError):
            staging.stage(made, work, Terms("unknown", "withhold"), [], quiet=True)
    assert not first.exists()
    staging.stage(made, work, Terms("unknown", "withhold"), [], quiet=True)
    assert first.read_bytes() == content
    assert list(first.parent.glob(".*")) == []


def test_files_are_named_by_split() -> None:
    files = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test.parquet"]
    assert cards.splits(files) == {
        "data_files": [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": "data/test.parquet"}]
    }


def test_a_card_with_a_broken_header_is_not_merged_into() -> None:
    with pytest.raises(ValueError, match="expected a card with a YAML header, got one that cannot be read"):
        cards.read("---\na: [1\n---\n# Hi\n")


def test_a_card_of_others_keeps_its_text_and_other_configurations() -> None:
    files = ["data/train-00000-of-00001.parquet"]
    mine = cards.ours("---\nlicense: mit\n---\n\n# Mine\n", "## Privacy gate", "a/b", files, records.features())
    theirs = "---\ntags: mine\nconfigs:\n- config_name: extra\n  data_files: extra/*.parquet\n---\n\n# Theirs\n"
    merged = cards.read(cards.merged(mine, theirs, ["v1 (2025-01-01): 1 films"]))
    assert merged.text.strip().startswith("# Theirs")
    assert merged.text.index("# Mine") < merged.text.index("## Privacy gate") < merged.text.index("- v1 (2025")
    assert (merged.data.license, merged.data.tags) == ("mit", "mine")
    assert {config["config_name"] for config in merged.data.configs} == {"default", "extra"}
    again = cards.merged(mine, str(merged), cards.changelog(str(merged)))
    assert again == str(merged)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """A dataset that `synthchex build --all` wrote: two films of each of three qualities; those of Medium are real."""
    kinds = ("High Quality", "Medium Quality", "Low Quality")
    films = [real_film(place) if place % 3 == 1 else new_film(place) for place in range(6)]
    rows = [
        {
            "image": {"bytes": images.to_png(film), "path": f"{place}.png"},
            **{"filename": f"{place}.png", "prompt": f"Mild edema number {place}.", "id": str(place)},
            **{"labels_dict": records.labels_dict(), "quality": kinds[place % 3], "judge": "fixed"},
            "drop_reason": "low_quality" if place % 3 == 2 else None,
        }
        for place, film in enumerate(films)
    ]
    plan = shards.Plan("filter", "test", 6, 6, {})
    shards.begin(tmp_path / "judged", plan)
    shards.write_shard(tmp_path / "judged", plan, 0, rows, records.features(verdict=True))
    script = runpy.run_path(str(synthchex.room("datasets_scripts") / "build.py"))
    script["main"](["--images", str(tmp_path / "judged"), "--out", str(tmp_path / "set"), "--all", "--quiet"])
    return tmp_path / "set"


def test_a_set_with_dropped_films_keeps_its_configurations_where_the_gate_empties_a_part(
    judged: Path, real: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, real_ours = list[Any](), cards.ours

    def ours(*given: Any) -> Any:
        sent.append(real_ours(*given))
        return sent[-1]

    monkeypatch.setattr(cards, "ours", ours)
    assert here(*usual(judged, real, "--dry-run", "--json", "--drop-flagged")) == 0
    said = json.loads(capsys.readouterr().out)
    names = [f"data/train-{group}-00000-of-00001.parquet" for group in ("high", "rejected")]
    assert list(said["files"]) == ["README.md", *names, "samples.png"]
    found = {one["config_name"]: one["data_files"] for one in sent[0].data.configs}
    high, rejected = "data/train-high-*", "data/train-rejected-*"
    assert found == {
        "all": [{"split": "train", "path": [high, rejected]}],
        "default": [{"split": "train", "path": high}],
        "high_quality": [{"split": "train", "path": high}],
    }
    folder = judged.with_name("set.publish")
    (folder / "README.md").write_text(str(sent[0]))
    for config, count in (("default", 2), ("high_quality", 2), ("all", 4)):
        rows = datasets.load_dataset(str(folder), config, split="train", cache_dir=str(folder / "cache"))
        assert len(rows) == count


def test_shards_that_workers_elsewhere_make_are_those_that_staging_makes(made: Path, tmp_path: Path) -> None:
    terms, asked = Terms("unknown", "withhold"), list[int]()

    def workers(
        numbers: Sequence[int], make: Callable[[], Callable[[int], None]]
    ) -> Iterator[int]:  # in another order, and one of them twice
        piece = pickle.loads(pickle.dumps(make))()
        for number in [*reversed(numbers), numbers[0]]:
            asked.append(number)
            piece(number)
            yield number

    first = staging.stage(made, tmp_path / "work", terms, [3], quiet=True)
    bytes_of = {name: path.read_bytes() for name, path in first.files.items()}
    for path in list(first.files.values())[:2]:
        path.unlink()
    again = staging.stage(made, tmp_path / "work", terms, [3], quiet=True, by_ray=workers)
    assert asked == [1, 0, 0]
    assert {name: path.read_bytes() for name, path in again.files.items()} == bytes_of
