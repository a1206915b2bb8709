"""Prompts: read, linted, chosen by label, balanced; the films that are wanted of them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from synthchex import room
from synthchex.data import lint, prompts, records, shards, tables


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_for_tests", room("generation") / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(count: int, **states: object) -> prompts.Prompts:
    """Prompts p0, p1, … with label states by row."""
    labels = np.full((count, 14), np.nan, np.float32)
    for name, rows in states.items():
        for row, state in dict(rows).items():  # type: ignore[call-overload]
            labels[row, records.LABELS.index(name.replace("_", " "))] = state
    return prompts.Prompts("memory", [f"p{i}" for i in range(count)], [f"words {i}" for i in range(count)], labels)


def test_prompts_are_columns_with_ids_and_labels(prompts_csv: Path, tmp_path: Path) -> None:
    found = prompts.open_prompts(prompts_csv)
    assert list(found.ids) == [f"case{i}" for i in range(7)]
    row = prompts.want(found, per_prompt=1, seed=0).row(1)
    assert (row["labels_dict"]["Edema"], row["labels_dict"]["Fracture"]) == (1, None)
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    lines = prompts.open_prompts(tmp_path / "lines.txt")
    assert (list(lines.texts), list(lines.ids), lines.numbered) == (["one", "two"], ["00000000", "00000001"], True)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"caption": text, "id": text}) for text in "ab"))
    assert list(prompts.open_prompts(tmp_path / "rows.jsonl").texts) == ["a", "b"]


def test_empty_prompts_and_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('prompt\nfine\n"   "\nnan\n')
    with pytest.raises(ValueError, match=r"got 2 empty ones \(rows \[1, 2\]\); fill or drop them"):
        prompts.open_prompts(path)
    assert list(prompts.open_prompts(path, empty=True).texts) == ["fine", "", ""]
    path.write_text("prompt\n")
    with pytest.raises(ValueError, match=r"expected prompts in .*, got 0 rows"):
        prompts.open_prompts(path)
    path.write_text("words\nx\n")
    with pytest.raises(
        ValueError, match=r"no prompt column: expected one of \['prompt', .* its columns are \['words'\]"
    ):
        prompts.open_prompts(path)
    path.write_text("id,prompt\na,x\na,y\n")
    with pytest.raises(ValueError, match=r"every id of .* once, got 1 repeats, e.g. \['a'\]; make ids unique, or name"):
        prompts.open_prompts(path)


def test_label_states_of_parquet_are_read_without_a_dict_per_row(tmp_path: Path) -> None:
    import pyarrow as pa

    rows = [records.labels_dict({"Edema": 1, "Fracture": -1}), None, records.labels_dict({"Edema": 0})]
    kind = pa.struct([(label, pa.int8()) for label in records.LABELS])
    table = pa.table({"prompt": ["a", "b", "c"], "labels_dict": pa.array(rows, kind)})
    shards.write_table(tmp_path / "a.parquet", table)
    opened = tables.open_table(tmp_path / "a.parquet")
    fast = opened.states("labels_dict")
    assert fast is not None
    slow = tables.label_states(tables.Table("x", opened.columns, 3, opened.column, opened.cell), "labels_dict")
    np.testing.assert_array_equal(fast, slow)
    assert fast[0, records.LABELS.index("Fracture")] == -1
    wrong = pa.table({"prompt": ["a"], "labels_dict": pa.array([records.labels_dict() | {"Edema": 7}], kind)})
    shards.write_table(tmp_path / "b.parquet", wrong)
    with pytest.raises(ValueError, match="row 0: Edema must be 1, 0, -1 or empty, got 7"):
        prompts.open_prompts(tmp_path / "b.parquet")


def test_films_have_ids_and_seeds_of_their_prompt_and_repeat() -> None:
    one, two = prompts.want(made(3), per_prompt=1, seed=5), prompts.want(made(3), per_prompt=2, seed=5, suffix="webp")
    assert [one.row(i)["id"] for i in range(3)] == ["p0", "p1", "p2"]
    assert [two.row(i)["filename"] for i in range(3)] == ["p0-0.webp", "p0-1.webp", "p1-0.webp"]
    assert one.row(1)["seed"] == two.row(2)["seed"] == records.row_seed(5, "p1", 0)
    assert len({two.row(i)["seed"] for i in range(6)}) == 6
    assert prompts.want(made(1).take([0]), per_prompt=1, seed=0).row(0)["prompt"] == "words 0"


def test_the_fingerprint_is_of_everything_that_decides_a_row() -> None:
    base = made(3, Edema={0: 1})
    marks = {
        prompts.want(found, per_prompt=k, seed=0).fingerprint()
        for found, k in (
            (base, 1), (base, 2), (base.head(2), 1), (made(3, Edema={1: 1}), 1), (base.saying(["a", "b", "c"]), 1),
            (base.saying(["wor", "ds 0", "x"]), 1),
        )
    }  # fmt: skip
    assert len(marks) == 6
    assert (
        prompts.want(base, per_prompt=1, seed=0).fingerprint() == prompts.want(base, per_prompt=1, seed=9).fingerprint()
    )


def test_labels_choose_prompts_and_uncertain_is_neither_with_nor_without() -> None:
    found = made(5, Edema={0: 1, 1: 1, 2: -1, 3: 0}, Fracture={1: 1})
    assert list(prompts.with_labels(found, ["Edema"], []).ids) == ["p0", "p1"]
    assert list(prompts.with_labels(found, ["Edema"], ["Fracture"]).ids) == ["p0"]
    assert list(prompts.with_labels(found, [], ["Edema"]).ids) == ["p3", "p4"]
    with pytest.raises(ValueError, match=r"expected prompts with Pneumonia, without Edema in memory, got 0 of 5"):
        prompts.with_labels(found, ["Pneumonia"], ["Edema"])
    with pytest.raises(ValueError, match=r"expected labels among .* got \['edema'\]"):
        prompts.with_labels(found, ["edema"], [])
    with pytest.raises(ValueError, match="expected labels in x to choose prompts by, got none"):
        prompts.with_labels(prompts.Prompts("x", ["a"], ["b"]), ["Edema"], [])


def test_balance_gives_the_long_tail_as_many_films_as_the_head() -> None:
    found = made(
        200,
        Edema=dict.fromkeys(range(150), 1),
        Pneumothorax=dict.fromkeys(range(140, 160), 1),
        Fracture={170: 1, 171: 1},
    )
    wanted = prompts.balance(found, 30, seed=3)
    counts = prompts.label_counts(wanted)
    assert counts == {"Edema": 30, "Pneumothorax": 30, "Fracture": 30}
    rows = [wanted.row(i) for i in range(len(wanted))]
    assert len({row["id"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows)
    assert sum(row["prompt"] == "words 170" for row in rows) == 15
    again, other = prompts.balance(found, 30, seed=3), prompts.balance(found, 30, seed=4)
    assert again.fingerprint() == wanted.fingerprint() != other.fingerprint()
    with pytest.raises(
        ValueError, match="expected prompts with a label that is present in memory, got none to balance"
    ):
        prompts.balance(made(3), 5, seed=0)


DIRTY = [
    "Comparison is made with ___ study.",
    "Compared to XXXX, no change.",
    "Seen on 03/12/2019, PA view.",
    "Subject p10012345 with edema.",
    "Film 12345678 reviewed.",
    "clear lungs",
    "clear lungs",
    "",
    "1.5 cm nodule w/o effusion; 50 year old.",
]


def test_what_names_a_patient_is_found_and_cut_out(generate: ModuleType) -> None:
    found = lint.look(DIRTY, generate.PATTERNS)
    assert found.counts == {
        "MIMIC-CXR subject": 1, "date": 1, "empty prompt": 1, "long number": 1, "mark of de-identification": 2,
        "repeated prompt": 1,
    }  # fmt: skip
    texts, left = lint.strip(DIRTY, found, generate.PATTERNS)
    assert left == [0, 1, 2, 3, 4, 5, 8]
    assert texts[:3] == ["Comparison is made with study.", "Compared to, no change.", "Seen on, PA view."]
    assert texts[-1] == DIRTY[-1]
    assert not lint.look(texts, generate.PATTERNS).rows
    assert lint.strip(["___", "fine"], lint.look(["___", "fine"], generate.PATTERNS), generate.PATTERNS)[1] == [1]


def test_the_fast_look_misses_nothing_that_the_slow_one_finds(generate: ModuleType) -> None:
    examples = [
        "a1b2c3d4-a1b2c3d4-a1b2c3d4-a1b2c3d4-a1b2c3d4", "p19999999", "s50000001", "patient00001/study2", "00000013_005",
        "cxr12_im-0345", "12345678901234567890_01-02-03", "123e4567-e89b-12d3-a456-426614174000",
        "1.2.840.113619.2.55.3", "see /home/user/film.png", r"C:\films\one.png", "2019-3-1", "1.2.2019", "1234567",
        "abcdefabcdefabcdefabcdefabcdefab", "[**Name**]", "____", "XXXX",
    ]  # fmt: skip
    unseen = set(generate.PATTERNS)
    for text in examples:
        slow = {kind for kind, pattern in generate.PATTERNS.items() if pattern.search(text)}
        assert slow == set(lint.look([text], generate.PATTERNS).rows), text
        assert slow, text
        unseen -= slow
    assert unseen == set(), "every pattern has an example"


def test_refusals_count_and_name_rows_but_never_show_a_prompt(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"1 with date \(rows \[2\]\)") as caught:
        lint.refuse(lint.look(DIRTY, generate.PATTERNS), "table")
    assert not re.search("2019|p100", str(caught.value))
