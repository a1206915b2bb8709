"""The command line: help that helps, errors in one line, codes that mean something."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from synthchex import cli, extras, options

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    page = capsys.readouterr().out
    assert all(f"  {command}" in page for command in cli.COMMANDS)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert "examples:\n  synthchex " in capsys.readouterr().out


def test_an_unknown_command_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generat"]) == options.BAD_INPUT
    assert "expected one of demo, doctor, run, generate" in capsys.readouterr().err


def test_hyphen_and_underscore_are_the_same() -> None:
    parser = options.Parser(command="x", description="", examples=("synthchex x",))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--name")
    parsed = parser.parse_args(["--batch_size=3", "--name", "a_b"])
    assert (parsed.batch_size, parsed.name) == (3, "a_b")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("expected 1, got 2"), 2, "error: expected 1, got 2"),
        (OSError(28, "No space left on device"), 1, "failed: [Errno 28] No space left"),
        (KeyboardInterrupt(), 130, "run the same command to go on"),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: object) -> None:
        raise error

    assert options.run(main) == code
    assert text in capsys.readouterr().err


def test_progress_falls_back_to_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with options.Progress("encode", 10, unit="films") as progress:
        progress.advance(10)
    assert capsys.readouterr().err.startswith("encode: 10/10 films, ")
    with options.Progress("encode", 10, quiet=True) as progress:
        progress.advance(10)
    assert capsys.readouterr().err == ""


def test_doctor_says_what_works(synthchex: Run) -> None:
    done = synthchex("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["packages"]["torch"]
    assert found["devices"][0] == "cpu"
    assert set(found["parts"]) == set(extras.EXTRAS)
    assert "phantom/generator" in found["embedded_models"]
    assert "parts" not in synthchex("doctor").stdout


def test_a_missing_extra_is_one_line_with_the_pip_command() -> None:
    with pytest.raises(
        ImportError, match=r"^this needs no_such_module, which is not installed: pip install 'synthchex\[generate\]'$"
    ):
        extras.require("no_such_module", extra="generate")
