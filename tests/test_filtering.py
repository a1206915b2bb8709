"""Judges and the filter: reasons, counts, nothing lost, the caption always shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex import judges, room
from synthchex.data import images, records, shards

Run = Callable[..., "subprocess.CompletedProcess[str]"]
RUBRICS = room("filtering") / "prompts"
NO_LABELS = [records.labels_dict() for _ in range(8)]


def test_agreement_is_the_mean_log_likelihood_of_stated_labels() -> None:
    logits = np.array([[2.0, -1.0, 5.0], [0.0, 0.0, 0.0]])
    labels = [{"Edema": 1, "Fracture": 0, "Pneumonia": None}, {"Edema": -1, "Fracture": None, "Pneumonia": None}]
    by_hand = (-np.log1p(np.exp(-2.0)) - np.log1p(np.exp(-1.0))) / 2
    found = judges.label_agreement(logits, ["Edema", "Fracture", "Pneumonia"], labels)
    assert found == pytest.approx([by_hand, 0.0])


def test_a_film_that_does_not_show_its_prompt_is_low_quality_with_a_reason(tmp_path: Path, films: np.ndarray) -> None:
    quality = tiny.vit_classifier(tmp_path / "quality", list(records.QUALITIES))
    label = tiny.vit_classifier(tmp_path / "label", ["Edema", "Fracture"], seed=1)
    strict = judges.JudgeRecipe("j", "classifier", str(quality), label_model=str(label), agreement=0.1)
    lax = judges.JudgeRecipe("j", "classifier", str(quality), label_model=str(label), agreement=-99.0)
    stated = [records.labels_dict({"Edema": 1, "Fracture": 0})] * 8
    by_strict, by_lax = (
        judges.load_judge(r, rubrics=RUBRICS).judge(list(films), ["x"] * 8, stated) for r in (strict, lax)
    )
    for low, kept in zip(by_strict, by_lax, strict=True):
        assert sum(kept.scores.values()) == pytest.approx(1.0)
        assert kept.quality == max(kept.scores, key=lambda name: kept.scores[name])
        if kept.quality in records.KEPT_QUALITIES:
            assert (low.quality, low.reason) == ("Low Quality", "label_mismatch")
        else:
            assert low == kept


def test_a_classifier_with_other_classes_is_refused(tmp_path: Path) -> None:
    wrong = tiny.vit_classifier(tmp_path / "wrong", ["good", "bad"])
    with pytest.raises(ValueError, match=r"expects a network with the classes .* got \['good', 'bad'\]"):
        judges.load_judge(judges.JudgeRecipe("j", "classifier", str(wrong)), rubrics=RUBRICS)


def test_a_vision_language_judge_scores_four_letters_in_one_pass(tmp_path: Path, films: np.ndarray) -> None:
    recipe = judges.JudgeRecipe("tiny", "vlm", str(tiny.llava(tmp_path / "vlm")))
    judge = judges.load_judge(recipe, rubrics=RUBRICS)
    prompts = ["A", "B B", "C C C", "D"]
    verdicts = judge.judge(list(films[:4]), prompts, NO_LABELS[:4])
    assert all(set(v.scores) == set(records.QUALITIES) and sum(v.scores.values()) == pytest.approx(1) for v in verdicts)
    alone = [judge.judge([film], [prompt], NO_LABELS[:1])[0] for film, prompt in zip(films[:4], prompts, strict=True)]
    for one, batched in zip(alone, verdicts, strict=True):
        assert one.scores == pytest.approx(batched.scores, abs=1e-5), "padding must not change a verdict"
    question = judge.question("mild edema on the left")  # type: ignore[attr-defined]
    assert "mild edema on the left" in question
    assert "D. Not Relevant" in question


def test_a_tokenizer_without_the_letters_is_refused(tmp_path: Path) -> None:
    recipe = judges.JudgeRecipe("tiny", "vlm", str(tiny.llava(tmp_path / "vlm", letters=False)))
    with pytest.raises(ValueError, match=r"expected a tokenizer that knows 'A', got the tokens \[0\]"):
        judges.load_judge(recipe, rubrics=RUBRICS)


def test_a_rubric_without_a_place_for_the_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blind.md").write_text("Is this a good film?")
    with pytest.raises(ValueError, match="without it the judge never sees the caption"):
        judges.read_rubric(str(tmp_path / "blind.md"), RUBRICS)
    with pytest.raises(ValueError, match=r"expected a .md file or one of \[.*'quality'.*\] as rubric, got 'taste'"):
        judges.read_rubric("taste", RUBRICS)


def test_the_filter_writes_every_row_once_and_counts_reasons(inside: Run, tmp_path: Path, films: np.ndarray) -> None:
    for index, film in enumerate(films):
        (tmp_path / f"{index}.png").write_bytes(images.to_png(film))
    (tmp_path / "3.png").write_bytes(b"broken")
    (tmp_path / "t.csv").write_text("path,prompt\n" + "".join(f"{i}.png,finding {i}\n" for i in range(9)))
    (tmp_path / "low.yaml").write_text("name: low\njudge: fixed\nanswer: Low Quality\n")
    done = inside(
        "filter",
        "--images",
        tmp_path / "t.csv",
        "--judge",
        tmp_path / "low.yaml",
        "--out",
        tmp_path / "judged",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["drop_reasons"] == {"low_quality": 7, "unreadable-not-an-image": 1, "unreadable-missing": 1}
    assert (counts["rows"], counts["kept"]) == (9, 0)
    rows = shards.Rows(shards.parquet_files(tmp_path / "judged"))
    assert rows.column("prompt") == [f"finding {i}" for i in range(9)]
    assert rows[3]["image"] is None
    assert rows[2]["image"]["bytes"] == (tmp_path / "2.png").read_bytes()
    kept = inside("build", "--images", tmp_path / "judged", "--out", tmp_path / "set")
    assert kept.returncode == 2
    assert "got 9, all of them dropped" in kept.stderr


def test_keep_high_drops_medium(inside: Run, tmp_path: Path, films: np.ndarray) -> None:
    (tmp_path / "0.png").write_bytes(images.to_png(films[0]))
    (tmp_path / "t.csv").write_text("path,prompt\n0.png,x\n")
    (tmp_path / "m.yaml").write_text("name: m\njudge: fixed\nanswer: Medium Quality\n")
    common = ["filter", "--images", tmp_path / "t.csv", "--judge", tmp_path / "m.yaml", "--json"]
    assert json.loads(inside(*common, "--out", tmp_path / "a").stdout)["kept"] == 1
    assert json.loads(inside(*common, "--out", tmp_path / "b", "--keep", "high").stdout)["drop_reasons"] == {
        "medium_quality": 1
    }


def test_films_without_prompts_cannot_be_judged(inside: Run, tmp_path: Path, films: np.ndarray) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(images.to_png(films[0]))
    done = inside("filter", "--images", tmp_path / "set", "--judge", "fixed", "--out", tmp_path / "judged")
    assert done.returncode == 2
    assert "has no prompts: a judge must see what a film should show" in done.stderr


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with films (one blurred, one black), real ones, and the words that screen them."""
    from PIL import Image, ImageFilter

    from synthchex import cli

    folder = tmp_path_factory.mktemp("screened")
    for name, count, seed in (("real", "60", "1"), ("films", "12", "2")):
        words = ["phantom", "--count", count, "--seed", seed, "--out", str(folder / name), "--quiet"]
        assert cli.main(words) == 0
    rows = shards.Rows(shards.parquet_files(folder / "films"))
    (folder / "png").mkdir()
    lines = ["path,prompt,Edema"]
    for number in range(12):
        film = images.read(rows[number]["image"]["bytes"]).pixels
        film = np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(3))) if number == 4 else film
        film = film * 0 if number == 7 else film
        (folder / "png" / f"{number}.png").write_bytes(images.to_png(film))
        lines.append(f"png/{number}.png,{rows[number]['prompt'].replace(',', ';')},{number % 2}")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    words = ["filter", "--images", str(folder / "films.csv"), "--judge", "phantom", "--screen", "pixels", "blur"]
    return folder, [*words, "--reference", str(folder / "real"), "--batch-size", "4"]


def test_screens_come_before_the_judge_who_does_not_look_at_what_they_drop(
    inside: Run, screened: tuple[Path, list[str]], tmp_path: Path
) -> None:
    done = inside(*screened[1], "--out", tmp_path / "judged", "--json")
    assert done.returncode == 0, done.stderr
    rows = shards.Rows(shards.parquet_files(tmp_path / "judged"))
    assert (rows[4]["drop_reason"], rows[4]["quality"], rows[4]["judge"]) == ("blurred", None, None)
    assert rows[7]["drop_reason"] == "constant"
    assert json.loads(rows[4]["quality_scores"])["screens"]["sharpness"] < -1
    assert json.loads(rows[0]["quality_scores"])["screens"]["mean"] > 8
    said = json.loads(done.stdout)
    assert said["quality"]["screened"] == 2
    assert said["screens"]["dropped"]["blurred"] == 1
    assert said["calibration"].startswith("uncalibrated")
    assert sum(said["by_label"]["Edema"].values()) == 6
    again = json.loads((tmp_path / "judged" / "report.json").read_text())
    assert again == said


def test_two_processes_screen_and_judge_the_same(
    inside: Run, synthchex: Run, screened: tuple[Path, list[str]], tmp_path: Path
) -> None:
    one = inside(*screened[1], "--out", tmp_path / "one", "--quiet")
    two = synthchex("launch", "--num-processes", "2", *screened[1], "--out", tmp_path / "two", "--quiet")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    names = sorted(path.name for path in (tmp_path / "one" / "data").iterdir())
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "one" / "data" / name).read_bytes() == (tmp_path / "two" / "data" / name).read_bytes()


def test_changed_screens_are_another_run(inside: Run, screened: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "judged", "--quiet"]
    assert inside(*screened[1], *out).returncode == 0
    done = inside(*screened[1], *out, "--false-drops", "0.05")
    assert done.returncode == 2
    assert "holds another run (recipe.false_drops: 0.01 there, 0.05 now)" in done.stderr


def test_a_screen_without_what_it_needs_is_refused(inside: Run, screened: tuple[Path, list[str]]) -> None:
    done = inside(*screened[1][:5], "--screen", "mirrored", "--out", screened[0] / "no")
    assert done.returncode == 2
    assert "the screen 'mirrored' needs reference and encoder" in done.stderr


def test_a_calibration_that_is_not_there_is_refused_first(
    inside: Run, screened: tuple[Path, list[str]], tmp_path: Path
) -> None:
    done = inside(*screened[1], "--calibration", tmp_path, "--out", tmp_path / "judged")
    assert done.returncode == 2
    assert "expected calibration.json in" in done.stderr


def test_films_keep_the_policy_of_their_prompts_and_what_the_generator_said(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from synthchex import cli
    from synthchex.data.importers import policies

    table = pa.table({"id": ["a", "b"], "prompt": ["edema", "normal"], "source_policy": ["credentialed"] * 2})
    pq.write_table(table, tmp_path / "prompts.parquet")
    words = ["generate", "--prompts", str(tmp_path / "prompts.parquet"), "--recipe", "noise", "--quiet"]
    assert cli.main([*words, "--out", str(tmp_path / "films")]) == 0
    assert policies.source_policy(tmp_path / "films") == "credentialed"
    assert cli.main([*words, "--out", str(tmp_path / "no"), "--source-policy", "open"]) == 2
    rows = pq.read_table(shards.parquet_files(tmp_path / "films")[0])
    failed = rows.set_column(rows.column_names.index("drop_reason"), "drop_reason", pa.array([None, "failed-nan"]))
    pq.write_table(failed, tmp_path / "films.parquet")
    judged = ["filter", "--images", str(tmp_path / "films.parquet"), "--judge", "fixed", "--quiet"]
    assert cli.main([*judged, "--out", str(tmp_path / "judged")]) == 0
    assert policies.source_policy(tmp_path / "judged") == "credentialed"
    done = shards.Rows(shards.parquet_files(tmp_path / "judged"))
    assert done.column("drop_reason") == [None, "failed-nan"]
    assert done.column("quality") == ["High Quality", None]
    words = ["build", "--images", str(tmp_path / "judged"), "--out", str(tmp_path / "set"), "--quiet"]
    assert cli.main(words) == 0
    assert policies.source_policy(tmp_path / "set") == "credentialed"
