"""A reader study made: films alike, strata matched, orders that tell nothing, a manifest that cannot be changed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthchex import cli, phantom, textmask
from synthchex.data import images, records, sources
from synthchex.options import BAD_INPUT
from synthchex.study import access, answers, arms, design, making, orders

sys.path.insert(0, str(Path(__file__).parent))
import readers


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[arms.Arm]:
    """A real set and two models."""
    return readers.sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def made(given: list[arms.Arm], tmp_path_factory: pytest.TempPathFactory) -> readers.Study:
    """A study of all tasks; not to be changed."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    return readers.study(folder, given, tasks=design.TASKS, strata=("Lung Opacity",), readers=3, feedback=True)


def test_films_of_all_arms_are_written_alike(made: readers.Study) -> None:
    paths = sorted((made.folder / "films").iterdir())
    assert len(paths) == 3 * (4 + 2)
    assert len({path.stat().st_size for path in paths}) == 1
    assert len({path.stat().st_mtime_ns for path in paths}) == 1
    for path in paths:
        with Image.open(path) as opened:
            assert (opened.mode, opened.size, opened.info) == ("L", (readers.SIZE, readers.SIZE), {})
        assert set(readers.png_chunks(path.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}


def test_a_film_goes_through_the_audited_reader_and_nothing_else(made: readers.Study, given: list[arms.Arm]) -> None:
    by_model = {arm.model: arm.films for arm in given}
    for case, facts in answers.truth(made.folder).items():
        films = by_model[facts["model"]]
        own = images.read(films.fetch(list(films.ids).index(facts["source_id"]))).pixels
        assert np.array_equal(images.read(made.folder / "films" / f"{case}.png").pixels, own)


def test_wide_deep_and_coloured_films_become_the_same_square() -> None:
    wide = np.tile(np.arange(300, dtype=np.uint8), (200, 1))
    found = arms.alike(np.stack([wide] * 3, axis=2), 100)
    assert isinstance(found, np.ndarray)
    assert (found.shape, found.dtype) == ((100, 100), np.uint8)
    assert int(found[0, 0]) == pytest.approx(51, abs=1)
    assert arms.alike(wide, 201) == "smaller-than-size"


def test_arms_have_the_same_strata_and_every_patient_once(made: readers.Study, given: list[arms.Arm]) -> None:
    truth = answers.truth(made.folder)
    strata = {
        model: Counter(facts["stratum"] for facts in truth.values() if facts["model"] == model)
        for model in ("real", *readers.MODELS)
    }
    assert strata["real"] == strata[readers.MODELS[0]] == strata[readers.MODELS[1]]
    for facts in truth.values():
        assert facts["stratum"] == ("Lung Opacity" if facts["labels"]["Lung Opacity"] == 1 else "not Lung Opacity")
    for arm in given:
        assert arm.films.patients is not None
        whose = dict(zip(arm.films.ids, arm.films.patients, strict=True))
        seen = [whose[facts["source_id"]] for facts in truth.values() if facts["model"] == arm.model]
        assert len(seen) == len(set(seen)) == 6


def test_the_same_seed_draws_the_same_films_under_other_names(
    made: readers.Study, given: list[arms.Arm], tmp_path: Path
) -> None:
    again = readers.study(tmp_path / "again", given, tasks=design.TASKS, strata=("Lung Opacity",), readers=3)
    other = readers.study(tmp_path / "other", given, tasks=design.TASKS, strata=("Lung Opacity",), readers=3, seed=2)

    def drawn(study: readers.Study) -> set[str]:
        return {facts["source_id"] for facts in answers.truth(study.folder).values()}

    assert drawn(again) == drawn(made) != drawn(other)
    assert not set(answers.truth(again.folder)) & set(answers.truth(made.folder))


def test_names_of_films_are_random(made: readers.Study) -> None:
    truth = answers.truth(made.folder)
    assert all(len(case) == 16 and set(case) <= set("0123456789abcdef") for case in truth)


def test_only_the_owner_can_open_a_study(made: readers.Study) -> None:
    for folder, _, names in os.walk(made.folder):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert {stat.S_IMODE(os.stat(Path(folder, name)).st_mode) for name in names} <= {0o600}


def test_codes_are_stored_hashed_and_open_for_their_reader_only(made: readers.Study) -> None:
    kept = design.read(made.folder, design.READERS)
    stored = "".join(path.read_text() for path in (made.folder / "private").iterdir())
    for reader, code in made.codes.items():
        assert access.reader_of(code, kept) == access.reader_of(f" {code.lower()} ", kept) == reader
        assert code not in stored
        assert access.reader_of(code[:-1] + ("2" if code[-1] != "2" else "3"), kept) is None
    assert access.reader_of(made.codes["R1"].replace("R1", "R2"), kept) is None
    assert access.reader_of("R9-AAAA-AAAA-AAAA", kept) is None
    assert len({entry["salt"] for entry in kept.values()}) == 3


def test_the_manifest_registers_the_design_and_names_no_film(made: readers.Study, given: list[arms.Arm]) -> None:
    manifest = design.load(made.folder)
    assert manifest["sha256"] == made.sha256 == design.sha256((made.folder / "manifest.json").read_bytes())
    assert manifest["design"]["n"] == 4
    assert manifest["readers"] == ["R1", "R2", "R3"]
    assert [(arm["arm"], arm["model"], arm["films"]) for arm in manifest["arms"]] == [
        ("real", "real", 4),
        ("synthetic", "alphadiff", 4),
        ("synthetic", "betagan", 4),
    ]
    assert len(manifest["hypotheses"]) == 4
    text = json.dumps(manifest)
    assert not [case for case in answers.truth(made.folder) if case in text]
    assert not [name for arm in given for name in arm.films.ids if str(name) in text]


@pytest.mark.parametrize("name", ["manifest.json", "private/truth.json", "private/orders.json", "films"])
def test_whatever_is_changed_later_is_refused(made: readers.Study, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    path = next((copy / name).iterdir()) if name == "films" else copy / name
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    for ask in (design.load, answers.table, answers.truth):
        with pytest.raises(ValueError, match="was changed after"):
            ask(copy)


def test_repeats_are_far_from_their_first_showing_and_no_arm_comes_in_long_runs(made: readers.Study) -> None:
    truth, shown = answers.truth(made.folder), design.read(made.folder, design.ORDERS)
    assert [list(dict.fromkeys(item["task"] for item in items)) for items in shown.values()] == [list(design.TASKS)] * 3
    for items in shown.values():
        for task in design.TASKS:
            mine = [item for item in items if item["task"] == task]
            assert [item["practice"] for item in mine] == [True] * 2 + [False] * (len(mine) - 2)
            first = {item["case"]: at for at, item in enumerate(mine) if not item["repeat"]}
            gaps = [at - first[item["case"]] for at, item in enumerate(mine) if item["repeat"]]
            assert len(gaps) == (1 if task == "preference" else 3)
            assert min(gaps) >= len(mine[2:]) // 3
            assert all(truth[film]["practice"] == item["practice"] for item in mine for film in item["films"])
    assert len({json.dumps(items) for items in shown.values()}) == 3


@pytest.mark.parametrize(("films", "models"), [(2, 1), (50, 1), (40, 3)])
def test_an_order_has_everything_once_and_repeats_once_more(films: int, models: int) -> None:
    kinds = {f"r{at}": "real" for at in range(films)} | {f"s{at}": "synthetic" for at in range(films * models)}
    repeated = orders.balanced({"r": [c for c in kinds if c[0] == "r"], "s": [c for c in kinds if c[0] == "s"]}, 1, 0)
    for seed in range(10):
        order = orders.sequence(list(kinds), repeated, kinds, seed)
        assert sorted(place.case for place in order if not place.repeat) == sorted(kinds)
        assert sorted(place.case for place in order if place.repeat) == sorted(repeated)
        runs = [len(list(run)) for _, run in groupby(kinds[place.case] for place in order)]
        assert max(runs) <= (4 if models == 1 else 6)
    assert orders.sequence(list(kinds), repeated, kinds, 1) == orders.sequence(list(kinds)[::-1], repeated, kinds, 1)


def test_pairs_are_of_one_prompt_and_change_sides(made: readers.Study, given: list[arms.Arm]) -> None:
    truth = answers.truth(made.folder)
    prompts = {str(i): p for arm in given for i, p in zip(arm.films.ids, arm.films.prompts or [], strict=True)}
    sides = Counter[str]()
    for items in design.read(made.folder, design.ORDERS).values():
        for item in items:
            if item["task"] == "preference":
                left, right = (truth[film] for film in item["films"])
                assert {left["model"], right["model"]} == set(readers.MODELS)
                assert prompts[left["source_id"]] == prompts[right["source_id"]]
                sides[left["model"]] += 1
    assert min(sides.values()) >= 3


def test_findings_that_readers_see_are_of_the_matched_strata_alone(made: readers.Study) -> None:
    for items in design.read(made.folder, design.ORDERS).values():
        for item in items:
            if item["task"] in ("quality", "preference"):
                assert set(item["findings"]["present"] + item["findings"]["absent"]) == {"Lung Opacity"}
            else:
                assert item["findings"] is None


def planted(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> list[arms.Arm]:
    """A real set, and a model whose films are other phantoms but for one, a changed copy of each real film."""
    real = sources.open_images(readers.films(folder / "real", "hospital", seed=1, count=8))
    path = readers.films(folder / "fake", "fake", seed=2, count=16)
    for row in range(8):
        copied = change(images.read(real.fetch(row)).pixels)
        Image.fromarray(copied).save(folder / "fake" / f"fake-file-{2 * row:03d}.png")
    return [arms.Arm("real", "real", real, "open"), arms.Arm("synthetic", "fake", sources.open_images(path), "open")]


@pytest.mark.parametrize(
    "change",
    [
        lambda film: film,
        lambda film: np.ascontiguousarray(film[:, ::-1]),
        lambda film: np.clip(film * 0.9 + np.random.default_rng(0).normal(0, 4, film.shape), 0, 255).astype(np.uint8),
    ],
    ids=["copy", "mirrored", "noise"],
)
def test_copies_of_real_films_are_not_shown_beside_them(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    pair = planted(tmp_path, change)
    whole = [arms.Arm(arm.arm, arm.model, arm.films.take(range(len(arm.films))), arm.policy) for arm in pair]
    for arm in whole:
        object.__setattr__(arm.films, "patients", None)
    with readers.blind():
        drawn = arms.draw(whole, arms.Wanted(8, 0, (), readers.SIZE, "count", 0, False))
    assert all(film.row % 2 == 1 for film in drawn.films["fake"])
    assert drawn.passed_over["fake"]["near-identical"] >= 1


class Remembering:
    """The detector, which looks at each film once."""

    def __init__(self) -> None:
        self.own, self.found = textmask.load_detector("tophat"), dict[bytes, list[textmask.Text]]()

    def detect(self, pixels: np.ndarray) -> list[textmask.Text]:
        key = pixels.tobytes()
        if key not in self.found:
            self.found[key] = self.own.detect(pixels)
        return self.found[key]


def test_text_on_films_is_counted_left_out_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Remembering()
    monkeypatch.setattr(textmask, "load_detector", lambda name: detector)
    films = phantom.make(3, size=256, seed=5, markers=True)
    own = sources.ImageSet("memory", [f"m{row}" for row in range(3)], lambda row: films.images[row])
    clean = phantom.make(3, size=256, seed=6)
    others = sources.ImageSet("memory", [f"c{row}" for row in range(3)], lambda row: clean.images[row])
    pair = [arms.Arm("real", "real", others, "open"), arms.Arm("synthetic", "marked", own, "open")]
    counted = arms.draw(pair, arms.Wanted(3, 0, (), 256, "count", 0, False))
    found = arms.screened(counted.films, lambda film: film.texts)
    assert found["real"] == 0
    assert found["marked"] >= 1
    with pytest.raises(ValueError, match=r"expected films without burned-in text, got \{'marked'"):
        arms.draw(pair, arms.Wanted(3, 0, (), 256, "refuse", 0, False))
    with pytest.raises(ValueError, match=r"marked: [1-3] burned-in-text"):
        arms.draw(pair, arms.Wanted(3, 0, (), 256, "exclude", 0, False))


def test_films_that_are_short_are_explained(given: list[arms.Arm], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 40 films and 1 for practice .* got 20"):
        readers.study(tmp_path / "s", given[:2], n=40)
    with pytest.raises(ValueError, match="20 smaller-than-size"):
        readers.study(tmp_path / "s", given[:2], size=128)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"tasks": ("guess",)}, "tasks must be some of"),
        ({"n": 1}, "n must be at least 2, got 1"),
        ({"repeats": 0.5}, "repeats must be 0.1 to 0.2"),
        ({"strata": ("Heart",)}, "strata must be among the 14 CheXpert labels"),
        ({"tasks": ("preference",)}, "expected two --synthetic sets or more, got 1"),
    ],
)
def test_designs_that_cannot_be_run_are_refused(
    given: list[arms.Arm], tmp_path: Path, wanted: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        readers.study(tmp_path / "s", given[:2], **wanted)


def test_a_study_is_never_written_over(made: readers.Study, given: list[arms.Arm]) -> None:
    with pytest.raises(ValueError, match="never written over"):
        making.make(made.folder, given, design.Design(size=readers.SIZE))


def test_uncertain_labels_take_part_in_no_stratum(given: list[arms.Arm]) -> None:
    films = given[0].films
    assert films.labels is not None
    labels = films.labels.copy()
    column = records.LABELS.index("Edema")
    labels[:3, column] = [-1, 1, np.nan]
    changed = sources.ImageSet("memory", films.ids, films.fetch, labels=labels, views=["PA"] * len(films))
    found = [arms.stratum_of(changed, row, ["Edema"], True) for row in range(3)]
    assert found == [None, "Edema, PA", "not Edema, PA"]


def test_shares_of_strata_add_up() -> None:
    assert arms.allocate(10, {"a": 30, "b": 10, "c": 1}) == {"a": 7, "b": 3, "c": 0}
    assert arms.allocate(5, {"a": 3, "b": 2}) == {"a": 3, "b": 2}
    assert arms.allocate(0, {"a": 3}) == {"a": 0}


def test_the_command_makes_a_study_and_prints_each_code_once(
    tmp_path: Path, given: list[arms.Arm], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {arm.model: str(Path(arm.films.source)) for arm in given}
    words = ["--real", paths["real"], "--synthetic", f"A={paths['alphadiff']}", "--n", "2", "--practice", "0"]
    words += ["--size", str(readers.SIZE), "--readers", "2", "--out", str(tmp_path / "study")]
    assert cli.main(["study", "new", *words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sha256"] == design.load(tmp_path / "study")["sha256"]
    assert {access.reader_of(c, design.read(tmp_path / "study", design.READERS)) for c in said["codes"].values()} == {
        "R1",
        "R2",
    }
    assert [arm["model"] for arm in said["arms"]] == ["real", "A"]
    assert cli.main(["study", "code", str(tmp_path / "study"), "R2"]) == 0
    new_code = capsys.readouterr().out.strip()
    kept = design.read(tmp_path / "study", design.READERS)
    assert access.reader_of(new_code, kept) == "R2"
    assert access.reader_of(said["codes"]["R2"], kept) is None
    assert cli.main(["study", "code", str(tmp_path / "study"), "R7"]) == BAD_INPUT


def opened(*words: object) -> list[arms.Arm]:
    from synthchex.commands import study

    return study.open_sets(study.new_parser().parse_args([*map(str, words), "--out", "s"]))


def test_rows_say_what_the_policy_of_an_arm_is(tmp_path: Path) -> None:
    free = readers.films(tmp_path / "a", "a", seed=1, count=4)
    closed = readers.films(tmp_path / "b", "b", seed=1, count=4, policy="credentialed")
    found = opened("--real", closed, "--synthetic", f"X={free}", f"Y={closed}")
    assert [(arm.arm, arm.model, arm.policy) for arm in found] == [
        ("real", "real", "credentialed"),
        ("synthetic", "X", "open"),
        ("synthetic", "Y", "credentialed"),
    ]
    assert opened("--real", free, "--synthetic", free, "--source-policy", "unknown")[0].policy == "unknown"
    with pytest.raises(ValueError, match="says that its films are credentialed, got open"):
        opened("--real", closed, "--synthetic", free, "--source-policy", "open")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tmp_path / "a" / "a-file-000.png", bare)
    assert opened("--real", bare, "--synthetic", free)[0].policy == "unknown"


def test_films_without_labels_take_those_of_the_prompts_they_were_made_from(tmp_path: Path) -> None:
    real = readers.films(tmp_path / "a", "a", seed=1, count=6)
    rows = list(csv.DictReader(real.open()))
    with open(tmp_path / "a" / "made.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "prompt"])
        writer.writeheader()
        writer.writerows({"image": row["image"], "prompt": row["prompt"]} for row in rows[:4])
        writer.writerow({"image": rows[4]["image"], "prompt": "of nobody"})
    found = opened("--real", real, "--synthetic", tmp_path / "a" / "made.csv", "--strata", "Edema")
    assert found[0].films.labels is not None
    assert found[1].films.labels is not None
    assert len(found[1].films) == 4
    assert np.array_equal(found[1].films.labels, found[0].films.labels[:4])


@pytest.mark.parametrize(
    ("word", "name"), [("A=films", ("A", "films")), ("org/set", ("set", "org/set")), ("a/b.csv", ("b", "a/b.csv"))]
)
def test_sets_may_be_named(word: str, name: tuple[str, str]) -> None:
    from synthchex.commands import study

    assert study.named(word) == name
