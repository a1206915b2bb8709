"""The metrics room as Spaces: what is uploaded, to whom it is refused, and that evaluate loads it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import localhub

import synthchex
from synthchex.commands import push_metrics
from synthchex.maths import frechet
from synthchex.measure import space

CARD = "---\ntitle: Toy\nsdk: gradio\napp_file: app.py\ntags:\n- evaluate\n- metric\n---\n# Toy\n"
METRIC = "fid"


@pytest.fixture(scope="module")
def hub() -> Iterator[localhub.Hub]:
    with localhub.serve() as running:
        yield running


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A metrics room with one metric, and folders that are none."""
    folder = tmp_path / "metrics"
    for name in ("toy", "__pycache__", "drafts"):
        (folder / name).mkdir(parents=True)
    (folder / "toy" / "toy.py").write_text('"""Toy."""\n')
    (folder / "toy" / "README.md").write_text(CARD)
    (folder / "toy" / "toy.pyc").write_bytes(b"x")
    monkeypatch.setattr(synthchex, "room", lambda name: folder)
    return folder


def run(hub: localhub.Hub, *arguments: str, token: str | None = localhub.WRITER) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, against the local hub."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
    environment |= {"HF_TOKEN": token} if token else {}
    script = (
        "import sys; from synthchex import options; from synthchex.commands "
        "import push_metrics as p; sys.exit(options.run(p.main, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_space_holds_the_module_its_card_a_pin_and_a_page(room: Path) -> None:
    (made,) = push_metrics.plan("clinic", requirement="synthchex==9.9.9")
    assert made.repo_id == "clinic/toy"
    assert sorted(made.files) == ["README.md", "app.py", "requirements.txt", "toy.py"]
    assert made.files["toy.py"] == (room / "toy" / "toy.py").read_bytes()
    assert made.files["requirements.txt"].decode().splitlines()[-1] == "synthchex==9.9.9"
    page = made.files["app.py"].decode()
    assert 'space.interface("toy").launch()' in page
    assert "{{" not in page
    compile(page, "app.py", "exec")


def test_the_default_pin_is_this_version() -> None:
    arguments = push_metrics.parser().parse_args(["--namespace", "clinic"])
    assert arguments.requirement == f"synthchex=={synthchex.__version__}"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("", "metric toy: expected README.md to start with a YAML header, got none; write the card"),
        ("# Toy\n", "metric toy: expected README.md to start with a YAML header, got none"),
        (CARD.replace("gradio", "docker"), r"metric toy: expected a card with .* got \{'sdk': 'docker'\}"),
        (CARD.replace("- metric\n", ""), r"got \{'title': 'Toy', 'tags': \['evaluate'\]\}; complete metrics/toy"),
    ],
)
def test_a_metric_without_a_fitting_card_stops_everything(room: Path, card: str, message: str) -> None:
    (room / "toy" / "README.md").write_text(card)
    with pytest.raises(ValueError, match=message):
        push_metrics.plan("clinic", requirement="synthchex")


def test_every_card_of_the_room_makes_a_space() -> None:
    folders = [path.parent for path in synthchex.room("metrics").glob("*/README.md")]
    assert METRIC in {folder.name for folder in folders}
    for folder in folders:
        made = push_metrics.files_of(folder.name, folder, "synthchex")
        assert {"README.md", "app.py", "requirements.txt", f"{folder.name}.py"} <= set(made)


@pytest.mark.parametrize(
    ("namespace", "only", "message"),
    [
        ("clinic/x", None, "namespace must be a user or organisation of the Hub, got 'clinic/x'"),
        ("clinic", ["fie"], r"only must be metrics of \['toy'\], got \['fie'\]"),
    ],
)
def test_names_are_checked_first(room: Path, namespace: str, only: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        push_metrics.plan(namespace, only=only, requirement="synthchex")


def test_dry_run_needs_neither_token_nor_network(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push_metrics.main(["--namespace", "anyone", "--dry-run"]) == 0
    assert "would push anyone/toy: README.md, app.py, requirements.txt, toy.py" in capsys.readouterr().out
    assert push_metrics.main(["--namespace", "anyone", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["spaces"][0]["id"], told["spaces"][0]["url"]) == (True, "anyone/toy", None)


def test_offline_is_said_before_anything_else(room: Path) -> None:
    with pytest.raises(ValueError, match="expected to reach the Hub, got HF_HUB_OFFLINE=1; unset it, or use --dry-run"):
        push_metrics.main(["--namespace", "clinic"])


@pytest.mark.parametrize(
    ("token", "namespace", "message"),
    [
        (None, "clinic", "error: expected a token with write access, got none; run `hf auth login` or set HF_TOKEN"),
        ("hf_bad", "clinic", "error: expected a token that the Hub knows, got one that it refuses"),
        (localhub.READER, "clinic", "error: expected a token with write access, got one that may only read"),
        (localhub.WRITER, "other", "error: namespace must be one of ['tester', 'clinic'], which this token belongs to"),
    ],
    ids=["no token", "unknown token", "read token", "other namespace"],
)
def test_access_is_refused_before_anything_is_uploaded(
    hub: localhub.Hub, token: str | None, namespace: str, message: str
) -> None:
    done = run(hub, "--namespace", namespace, "--only", METRIC, token=token)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not [path for method, path, _ in hub.requests if method == "POST" and "create" in path]


def test_an_unreachable_hub_is_one_line() -> None:
    hub = types.SimpleNamespace(url="http://127.0.0.1:9")
    done = run(hub, "--namespace", "clinic", "--only", METRIC)  # type: ignore[arg-type]
    assert done.returncode == 2
    assert "error: expected to reach http://127.0.0.1:9, got " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def pushed(hub: localhub.Hub) -> dict[str, Any]:
    """The real module on the local hub, pushed privately."""
    done = run(hub, "--namespace", localhub.ORGANISATION, "--only", METRIC, "--private", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_pushed_space_holds_what_was_planned(hub: localhub.Hub, pushed: dict[str, Any]) -> None:
    (planned,) = push_metrics.plan("clinic", only=[METRIC], requirement=f"synthchex=={synthchex.__version__}")
    held = hub.space(planned.repo_id)
    assert {name: held.files[name] for name in planned.files} == planned.files
    assert (held.private, held.sdk, len(held.commits)) == (True, "gradio", 2)
    assert pushed["spaces"][0]["url"] == f"{hub.url}/spaces/clinic/{METRIC}"


def test_pushing_again_commits_nothing(hub: localhub.Hub, pushed: dict[str, Any]) -> None:
    done = run(hub, "--namespace", "clinic", "--only", METRIC)
    assert done.returncode == 0, done.stderr
    assert f'evaluate.load("clinic/{METRIC}")' in done.stdout
    assert len(hub.space(f"clinic/{METRIC}").commits) == 2


def test_evaluate_loads_the_space_and_computes(hub: localhub.Hub, pushed: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(60, 4)), rng.normal(1, 1, size=(50, 4))
    np.savez(tmp_path / "sides.npz", fake=fake, real=real)
    script = (
        "import evaluate, numpy as np; sides = np.load('sides.npz'); "
        f"metric = evaluate.load('clinic/{METRIC}'); "
        f"print(metric.compute(predictions=sides['fake'], references=sides['real'])['{METRIC}'])"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": localhub.WRITER, "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-9)
    asked = [path for method, path, status in hub.requests if status == 200 and "/resolve/" in path]
    assert f"/spaces/clinic/{METRIC}/resolve/main/{METRIC}.py" in asked


# The page ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gradio(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """As much of gradio as the page uses; what `Interface` was given."""
    given: dict[str, Any] = {}

    class Error(Exception):
        pass

    def interface(**options: Any) -> types.SimpleNamespace:
        given.update(options)
        return types.SimpleNamespace(launch=lambda: given.update(launched=True))

    part: Callable[..., Any] = lambda **options: options  # noqa: E731
    double = types.SimpleNamespace(Interface=interface, File=part, Textbox=part, JSON=part, Error=Error)
    monkeypatch.setitem(sys.modules, "gradio", double)
    return given


def test_the_page_scores_uploaded_features(gradio: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(1, 1, size=(50, 4)).astype(np.float32)
    for name, rows in (("fake", fake), ("real", real)):
        np.savez(tmp_path / f"{name}.npz", features=rows)
    exec(push_metrics.PAGE.replace("{{ metric }}", METRIC), {})
    assert gradio["launched"]
    assert len(gradio["inputs"]) == 3
    result = gradio["fn"]([str(tmp_path / "fake.npz")], [str(tmp_path / "real.npz")], "")
    assert result[METRIC] == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-9)
    json.dumps(result, allow_nan=False)
    with pytest.raises(Exception, match="synthetic: expected one file of features, or images, got 2 files"):
        gradio["fn"]([str(tmp_path / "fake.npz"), "a.png"], [str(tmp_path / "real.npz")], "")
    with pytest.raises(Exception, match="expected predictions and references, got no references"):
        gradio["fn"]([str(tmp_path / "fake.npz")], None, "")


def test_uploads_are_features_or_images() -> None:
    assert space.side(None, "real") is None
    assert space.side(["a.npz"], "real") == "a.npz"
    assert space.side("a.safetensors", "real") == "a.safetensors"
    assert space.side(["a.png", "b.png"], "real") == ["a.png", "b.png"]


def test_numbers_without_a_word_in_json_are_null() -> None:
    assert space.plain({"a": float("nan"), "b": [1.5, float("inf")], "c": None}) == {
        "a": None,
        "b": [1.5, None],
        "c": None,
    }


def test_without_gradio_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(
        ImportError, match=r"this needs gradio, which is not installed: pip install 'synthchex\[study\]'"
    ):
        space.interface(METRIC)
