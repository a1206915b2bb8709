"""Several judges: votes, ties, agreement, and what the filter writes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthchex import judges, room
from synthchex.data import images, records, shards
from synthchex.judges import panel, verdicts
from synthchex.judges.audit import audit

sys.path.insert(0, str(room("filtering")))
import filter as room_filter

HIGH, MEDIUM, LOW, NOT = records.QUALITIES
FILM = np.zeros((8, 8), np.uint8)


class Said:
    """A judge that says what it was told to."""

    def __init__(self, name: str, *answers: verdicts.Verdict | str | None) -> None:
        self.name, self.identity, self.answers = name, {"name": name, "revision": f"{name}-1"}, answers

    def judge(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[Mapping[str, int | None]]
    ) -> list[verdicts.Verdict]:
        """The answers, one per film."""
        assert len(films) == len(self.answers)
        return [
            one
            if isinstance(one, verdicts.Verdict)
            else verdicts.certain(one)
            if one
            else verdicts.unparsed(answer="?")
            for one in self.answers
        ]


def vote(how: str, *votes: str | None) -> verdicts.Verdict:
    """The panel's verdict on one film."""
    members = [Said(f"j{number}", one) for number, one in enumerate(votes)]
    return judges.Panel(members, how).judge([FILM], ["x"], [records.labels_dict()])[0]


@pytest.mark.parametrize(
    ("votes", "majority", "every"),
    [
        ((HIGH, HIGH, LOW), HIGH, LOW),
        ((HIGH, MEDIUM), MEDIUM, MEDIUM),
        ((HIGH, NOT), NOT, NOT),
        ((HIGH, MEDIUM, LOW), LOW, LOW),
        ((HIGH, HIGH, NOT, NOT, LOW), NOT, NOT),
        ((HIGH, None), HIGH, None),
        ((LOW, None), LOW, LOW),
        ((HIGH, HIGH, None), HIGH, None),
        ((None, None), None, None),
        ((MEDIUM, MEDIUM), MEDIUM, MEDIUM),
    ],
)
def test_ties_go_to_the_worse_class_and_the_unread_have_no_vote(
    votes: tuple[str | None, ...], majority: str | None, every: str | None
) -> None:
    assert vote("majority", *votes).quality == majority
    found = vote("all", *votes)
    assert found.quality == every
    assert found.reason == ("unparsed" if every is None else None)
    assert [one["quality"] for one in found.details["verdicts"]] == list(votes)


def test_the_scores_are_the_mean_of_those_that_answered() -> None:
    one = verdicts.best({HIGH: 0.7, MEDIUM: 0.1, LOW: 0.1, NOT: 0.1}, log_probs={HIGH: -0.4})
    other = verdicts.best({HIGH: 0.1, MEDIUM: 0.7, LOW: 0.1, NOT: 0.1})
    three = judges.Panel([Said("a", one), Said("b", other), Said("c", None)], "majority")
    found = three.judge([FILM], ["x"], [{}])[0]
    assert found.scores == pytest.approx({HIGH: 0.4, MEDIUM: 0.4, LOW: 0.1, NOT: 0.1})
    assert found.details["verdicts"][0]["log_probs"] == {HIGH: -0.4}
    assert found.details["verdicts"][2]["answer"] == "?"
    assert [each["judged_by"]["revision"] for each in found.details["verdicts"]] == ["a-1", "b-1", "c-1"]


def test_the_reason_of_the_judge_that_carried_the_vote_is_kept() -> None:
    mismatch = verdicts.certain(LOW)._replace(reason="label_mismatch")
    assert vote("all", HIGH, None).reason == "unparsed"
    two = judges.Panel([Said("a", verdicts.certain(HIGH)), Said("b", mismatch)], "all")
    assert two.judge([FILM], ["x"], [{}])[0].reason == "label_mismatch"


def test_a_panel_of_one_or_of_namesakes_is_refused() -> None:
    for members in ([Said("a", HIGH)], [Said("a", HIGH), Said("a", LOW)]):
        with pytest.raises(ValueError, match="expected two or more judges with different names"):
            judges.Panel(members, "majority")
    with pytest.raises(ValueError, match="vote must be one of"):
        judges.Panel([Said("a", HIGH), Said("b", HIGH)], "mean")


def test_cohens_kappa_by_hand() -> None:
    votes = [(HIGH, HIGH)] * 20 + [(HIGH, LOW)] * 5 + [(LOW, HIGH)] * 10 + [(LOW, LOW)] * 15
    found = panel.agreement(votes)
    # 35 of 50 agree; the first says High 25 times, the second 30 times.
    chance = 0.5 * 0.6 + 0.5 * 0.4
    assert found["kappa"] == pytest.approx((0.7 - chance) / (1 - chance))
    assert (found["statistic"], found["agree"], found["n"], found["films"]) == ("Cohen's kappa", 0.7, 50, 50)


def test_cohens_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    first = generator.choice(records.QUALITIES, 300)
    second = np.where(generator.random(300) < 0.6, first, generator.choice(records.QUALITIES, 300))
    found = panel.agreement(list(zip(first.tolist(), second.tolist(), strict=True)))
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_fleiss_kappa_by_hand() -> None:
    votes = [(HIGH, HIGH, HIGH), (HIGH, HIGH, LOW), (LOW, LOW, LOW), (MEDIUM, LOW, HIGH)]
    found = panel.agreement(votes)
    observed = (1 + 1 / 3 + 1 + 0) / 4
    chance = (6 / 12) ** 2 + (1 / 12) ** 2 + (5 / 12) ** 2
    assert found["kappa"] == pytest.approx((observed - chance) / (1 - chance))
    assert (found["statistic"], found["agree"], found["n"]) == ("Fleiss' kappa", 0.5, 4)


def test_films_without_all_answers_do_not_count_and_one_class_has_no_kappa() -> None:
    found = panel.agreement([(HIGH, HIGH), (HIGH, None), (HIGH, HIGH)])
    assert (found["n"], found["films"], found["kappa"], found["agree"]) == (2, 3, None, 1.0)
    assert panel.agreement([(None, HIGH)])["kappa"] is None


def test_an_audit_counts_what_each_judge_said() -> None:
    two = judges.Panel([Said("a", HIGH, LOW), Said("b", HIGH, None)], "majority")
    texts = [judges.scores_text(one, two) for one in two.judge([FILM] * 2, ["x"] * 2, [{}] * 2)]
    found = audit([*texts, None])
    assert found["by_judge"] == {"a": {HIGH: 1, LOW: 1}, "b": {HIGH: 1, "unparsed": 1}}
    assert (found["agreement"]["n"], found["agreement"]["films"]) == (1, 2)
    single = [judges.scores_text(verdicts.certain(HIGH, retried=True, prompt_tokens_cut=4))]
    assert audit(single) == {"retried": 1, "prompt_tokens_cut": 1}


@pytest.mark.parametrize(("how", "kept"), [("majority", 3), ("all", 0)])
def test_the_filter_takes_several_judges(
    how: str, kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = several(tmp_path, {"a": HIGH, "b": MEDIUM, "c": HIGH} if how == "majority" else {"a": HIGH, "b": LOW})
    assert room_filter.main([*arguments, "--vote", how, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["rows"], counts["kept"]) == (3, kept)
    assert counts["judges"]["agreement"]["n"] == 3
    assert counts["judges"]["by_judge"]["b"] == ({MEDIUM: 3} if how == "majority" else {LOW: 3})
    rows = shards.Rows(shards.parquet_files(tmp_path / "out"))
    assert rows.column("judge")[0] == ("majority of a, b, c" if how == "majority" else "all of a, b")
    stored = json.loads(rows.column("quality_scores")[0])
    assert [one["judged_by"]["name"] for one in stored["verdicts"]] == (
        ["a", "b", "c"] if how == "majority" else ["a", "b"]
    )
    other = "all" if how == "majority" else "majority"
    with pytest.raises(ValueError, match=r"holds another run .*vote"):
        room_filter.main([*arguments, "--vote", other])


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    arguments = several(tmp_path, {"a": HIGH})
    with pytest.raises(ValueError, match=r"expected judges with different names, got \['a', 'a'\]"):
        room_filter.main([*arguments, "--judge", str(tmp_path / "a.yaml")])


def test_a_changed_rubric_is_another_run(tmp_path: Path) -> None:
    def decides(text: str, folder: Path) -> dict[str, Any]:
        (folder / "r.md").write_text(text)
        recipe = judges.JudgeRecipe("v", "vlm", "org/m", rubric=str(folder / "r.md"))
        return room_filter.decides([recipe], "majority")

    assert decides("Is it {prompt}?", tmp_path) != decides("Is this {prompt}?", tmp_path)


def several(folder: Path, answers: dict[str, str]) -> list[str]:
    """Three films, fixed judges with these answers, and the arguments of `synthchex filter`."""
    for number in range(3):
        (folder / f"{number}.png").write_bytes(images.to_png(FILM + number))
    (folder / "t.csv").write_text("path,prompt\n" + "".join(f"{number}.png,x\n" for number in range(3)))
    arguments = ["--images", str(folder / "t.csv"), "--out", str(folder / "out")]
    for name, answer in answers.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\njudge: fixed\nanswer: {answer}\n")
        arguments += ["--judge", str(folder / f"{name}.yaml")]
    return arguments
