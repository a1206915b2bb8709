"""Vision-language judges: packed scores, generated answers, what cannot be read, captions that are too long."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny_vlms

from synthchex import judges, room
from synthchex.data import images, records, shards
from synthchex.judges import rubrics, scoring, verdicts, vlm
from synthchex.models import auto

sys.path.insert(0, str(room("filtering")))
import filter as room_filter

RUBRICS = room("filtering") / "prompts"
PROMPTS = ["mild edema", "no finding", "a much longer caption, with an effusion on the left side", "x"]
NO_LABELS = [records.labels_dict()] * 4
PACKS = {"llava": "packed", "idefics3": "packed", "gemma3": "cache", "qwen2_5_vl": "cache", "qwen3_vl": "cache"}


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Four films of different sizes; the last one is in colour."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, np.uint8) for shape in ((48, 48), (60, 44), (48, 48), (40, 40, 3))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models, one of each class."""
    root = tmp_path_factory.mktemp("vlms")
    return {name: build(root / name) for name, build in tiny_vlms.MODELS.items()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(folder: Path, **options: Any) -> vlm.VisionLanguageJudge:
    """A judge of a tiny model."""
    recipe = judges.JudgeRecipe("tiny", "vlm", str(folder), **options)
    found = judges.load_judge(recipe, rubrics=RUBRICS)
    assert isinstance(found, vlm.VisionLanguageJudge)
    return found


def logs(found: list[verdicts.Verdict]) -> np.ndarray:
    """Log-probabilities (N, 4) in the order of the classes."""
    return np.array([[verdict.details["log_probs"][name] for name in records.QUALITIES] for verdict in found])


def by_hand(judge: vlm.VisionLanguageJudge, film: np.ndarray, prompt: str, choice: str) -> float:
    """Log-probability of one answer by a forward of text and answer, one film, nothing shared and nothing padded."""
    network = judge.network
    asked = network.inputs([film], [judge.form.ask(prompt)])
    ids = torch.tensor([network.tokenizer(choice, add_special_tokens=False)["input_ids"]])
    more = dict(asked) | {"input_ids": torch.cat([asked["input_ids"], ids], 1)}
    for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in asked:
            filled = torch.full_like(ids, int(name == "attention_mask"))
            more[name] = torch.cat([asked[name], filled], 1)
    with torch.no_grad():
        scores = network.model(**more).logits[0, -ids.shape[1] - 1 : -1].log_softmax(-1)
    return float(scores.gather(1, ids[0][:, None]).sum())


@pytest.mark.parametrize("name", tiny_vlms.MODELS)
def test_all_labels_at_once_score_as_separate_passes(
    name: str, folders: dict[str, Path], films: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        judge = load(folders[name], answers="labels")
    assert judge.packing == PACKS[name]
    assert bool(caplog.records) == (judge.packing != "packed"), "a model that cannot be packed says so"
    assert all("is scored with packing cache, not packed:" in record.getMessage() for record in caplog.records)
    found = judge.judge(films, PROMPTS, NO_LABELS)
    apart = [[by_hand(judge, *pair, label) for label in records.QUALITIES] for pair in zip(films, PROMPTS, strict=True)]
    np.testing.assert_allclose(logs(found), apart, atol=2e-4)
    assert (logs(found).argmax(1) == np.argmax(apart, 1)).all()
    lengths = [len(answer) for answer in judge.answers]
    assert len(set(lengths)) > 1, "labels of one length would not show that lengths are taken into account"
    for verdict, row in zip(found, np.array(apart) / lengths, strict=True):
        assert verdict.quality == records.QUALITIES[row.argmax()]
        np.testing.assert_allclose(list(verdict.scores.values()), np.exp(row) / np.exp(row).sum(), atol=1e-4)
    assert len({verdict.scores["High Quality"] for verdict in found}) == 4, "another film, another score"


@pytest.mark.parametrize("name", tiny_vlms.MODELS)
@pytest.mark.parametrize("way", ["cache", "separate"])
def test_every_way_of_packing_gives_the_same(
    name: str, way: str, folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    judge, other = load(folders[name], answers="labels"), load(folders[name], answers="labels", packing=way)
    assert other.packing == way
    both = [logs(one.judge(films, PROMPTS, NO_LABELS)) for one in (judge, other)]
    np.testing.assert_allclose(*both, atol=2e-4)


@pytest.mark.parametrize("name", tiny_vlms.MODELS)
def test_letters_are_read_after_one_forward(name: str, folders: dict[str, Path], films: list[np.ndarray]) -> None:
    judge = load(folders[name])
    calls: list[Any] = []
    judge.network.model.register_forward_hook(lambda *found: calls.append(found))
    found = judge.judge(films, PROMPTS, NO_LABELS)
    assert len(calls) == 1
    apart = [[by_hand(judge, *pair, letter) for letter in "ABCD"] for pair in zip(films, PROMPTS, strict=True)]
    np.testing.assert_allclose(logs(found), apart, atol=2e-4)
    for verdict, row in zip(found, np.exp(apart), strict=True):
        assert verdict.details["label_mass"] == pytest.approx(row.sum(), rel=1e-3)
        assert sum(verdict.scores.values()) == pytest.approx(1)
        assert verdict.reason is None


def test_packing_is_one_forward_and_cache_is_two(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    for way, count in (("packed", 1), ("cache", 2), ("separate", 4)):
        judge = load(folders["llava"], answers="labels", packing=way)
        calls: list[Any] = []
        judge.network.model.register_forward_hook(lambda *found, calls=calls: calls.append(found))
        judge.judge(films, PROMPTS, NO_LABELS)
        assert len(calls) == count


def test_a_way_that_gives_other_numbers_is_left_and_named(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    network = load(folders["llava"], answers="labels").network
    answers = [network.answer_ids(quality) for quality in records.QUALITIES]
    inputs = network.inputs(films[:1], ["x"])
    language = network.model.model.language_model
    forward, seen = language.forward, []

    def without_blocks(*given: Any, attention_mask: Any = None, **options: Any) -> Any:
        """A model that reads no mask of blocks, as one with its own attention would."""
        seen.append(attention_mask.ndim)
        return forward(*given, attention_mask=attention_mask if attention_mask.ndim == 2 else None, **options)

    language.forward = without_blocks
    way, left = scoring.allowed_way(network.model, inputs, answers, "packed", "float32")
    assert (way, 4 in seen) == ("cache", True)
    assert len(left) == 1
    assert left[0].startswith("packed: its log-probabilities differ by")


def test_half_precision_is_scored_in_float32_and_still_packed(
    folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    judge = load(folders["llava"], answers="labels", dtype="bfloat16")
    assert (judge.packing, judge.network.model.dtype) == ("packed", torch.bfloat16)
    exact = logs(load(folders["llava"], answers="labels").judge(films, PROMPTS, NO_LABELS))
    np.testing.assert_allclose(logs(judge.judge(films, PROMPTS, NO_LABELS)), exact, atol=0.6)


def test_right_padding_is_an_error(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    judge = load(folders["llava"])
    judge.network.tokenizer.padding_side = "right"
    with pytest.raises(AssertionError, match="padded on the left"):
        judge.judge(films, PROMPTS, NO_LABELS)


def test_a_prior_is_what_the_question_scores_on_a_grey_film(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    plain, judge = load(folders["llava"]), load(folders["llava"], prior=True)
    neutral = logs(plain.judge([vlm.NEUTRAL_FILM], [vlm.NEUTRAL_PROMPT], NO_LABELS[:1]))[0]
    before, after = (one.judge(films, PROMPTS, NO_LABELS) for one in (plain, judge))
    np.testing.assert_allclose(logs(before), logs(after), atol=1e-5)
    for one, other in zip(before, after, strict=True):
        expected = np.array(list(one.scores.values())) / np.exp(neutral)
        np.testing.assert_allclose(list(other.scores.values()), expected / expected.sum(), atol=1e-4)


def test_an_answer_may_begin_with_what_the_model_writes_first(
    folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    judge = load(folders["llava"], answers="labels", answer_prefix=" ")
    assert judge.question("x").endswith("ASSISTANT:")
    found = judge.judge(films[:1], PROMPTS[:1], NO_LABELS[:1])
    expected = [by_hand(judge, films[0], PROMPTS[0], f" {label}") for label in records.QUALITIES]
    np.testing.assert_allclose(logs(found)[0], expected, atol=2e-4)
    generated = load(folders["llava"], read_out="generate", answers="labels", answer_prefix=" ")
    answer = generated.judge(films[:1], PROMPTS[:1], NO_LABELS[:1])[0].details["answer"]
    assert answer.startswith(" ")
    assert answer.strip() in records.QUALITIES


def test_another_order_offers_the_classes_in_that_order(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    order = tuple(reversed(records.QUALITIES))
    judge = load(folders["llava"], order=order)
    assert "A. Not Relevant\nB. Low Quality" in judge.question("x")
    found = judge.judge(films[:1], PROMPTS[:1], NO_LABELS[:1])[0]
    assert list(found.scores) == list(records.QUALITIES)
    assert found.details["log_probs"]["Not Relevant"] == pytest.approx(
        by_hand(judge, films[0], PROMPTS[0], "A"), abs=1e-4
    )


def test_a_template_that_writes_the_first_token_does_not_get_it_twice(
    folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    ids = load(folders["gemma3"]).network.inputs(films[:1], ["x"])["input_ids"][0].tolist()
    assert ids.count(1) == 1


@pytest.mark.parametrize("name", tiny_vlms.MODELS)
def test_a_constrained_answer_is_always_one_of_the_labels(
    name: str, folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    for kind in ("letters", "labels"):
        judge = load(folders[name], read_out="generate", answers=kind)
        for verdict in judge.judge(films, PROMPTS, NO_LABELS):
            assert verdict.details["answer"] in judge.form.choices
            assert verdict.quality == judge.form.read(verdict.details["answer"])
            assert verdict.scores[str(verdict.quality)] == 1


def test_a_constrained_letter_is_the_one_with_the_highest_score(
    folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    scored, generated = (load(folders["idefics3"], read_out=name) for name in ("score", "generate"))
    both = [one.judge(films, PROMPTS, NO_LABELS) for one in (scored, generated)]
    assert [verdict.quality for verdict in both[0]] == [verdict.quality for verdict in both[1]]


def test_an_answer_that_cannot_be_read_is_asked_again_once_and_never_guessed(
    folders: dict[str, Path], films: list[np.ndarray]
) -> None:
    judge = load(folders["llava"], read_out="generate", constrained=False)
    asked: list[list[str]] = []
    answers = iter([["B", "I think it is fine", "D.", "A or B"], ["C", "I cannot say"]])
    inputs = judge.network.inputs

    def seen(films: Any, questions: Any) -> Any:
        asked.append(list(questions))
        return inputs(films, questions)

    judge.network.inputs = seen  # type: ignore[method-assign]
    judge.network.generate = lambda *given, **options: next(answers)  # type: ignore[method-assign]
    found = judge.judge(films, PROMPTS, NO_LABELS)
    assert [verdict.quality for verdict in found] == ["Medium Quality", "Low Quality", "Not Relevant", None]
    assert [len(one) for one in asked] == [4, 2]
    assert all(rubrics.AGAIN in one for one in asked[1])
    assert "no finding" in asked[1][0], "the caption is shown again"
    assert found[1].details == {"answer": "C", "first_answer": "I think it is fine", "retried": True}
    lost = found[3]
    assert (lost.reason, dict(lost.scores)) == ("unparsed", {})
    assert lost.details == {"answer": "I cannot say", "first_answer": "A or B", "retried": True}


def test_free_words_are_generated_and_read(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    judge = load(folders["qwen2_5_vl"], read_out="generate", constrained=False, max_new_tokens=3)
    found = judge.judge(films, PROMPTS, NO_LABELS)
    assert all(verdict.quality is None and verdict.details["retried"] for verdict in found)
    alone = judge.judge(films[1:2], PROMPTS[1:2], NO_LABELS[:1])[0]
    assert alone.details == found[1].details, "padding must not change an answer"


def test_the_published_question_is_the_rubric_alone(folders: dict[str, Path], films: list[np.ndarray]) -> None:
    judge = load(folders["llava"], read_out="published", rubric="published", max_new_tokens=2)
    text = (RUBRICS / "published.md").read_text().strip()
    assert judge.question("mild edema") == f"USER:<image>\n{text.replace('{prompt}', 'mild edema')}ASSISTANT:"
    answers = iter([["The film is of High Quality.", "high quality or medium quality", "Not Relevant", "fine"]])
    judge.network.generate = lambda *given, **options: next(answers)  # type: ignore[method-assign]
    found = judge.judge(films, PROMPTS, NO_LABELS)
    assert [verdict.quality for verdict in found] == ["High Quality", None, "Not Relevant", None]
    assert found[1].details == {"answer": "high quality or medium quality"}, "nothing is asked again"


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        ("A", "High Quality"), (" b.\n", "Medium Quality"), ("(C)", "Low Quality"), ("**D**", "Not Relevant"),
        ("B. Medium Quality", "Medium Quality"), ("Answer: A", "High Quality"), ("low quality", "Low Quality"),
        ('"Not Relevant."', "Not Relevant"), ("A. Low Quality", None), ("E", None), ("", None), ("A B", None),
        ("Quality", None), ("not High Quality", None), ("A film of High Quality", None), ("AA", None),
    ],
)  # fmt: skip
def test_the_strict_parser_reads_an_answer_and_nothing_else(answer: str, quality: str | None) -> None:
    assert rubrics.Form("{prompt}").read(answer) == quality


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        ("The image is of HIGH  quality.", "High Quality"),
        ("Not Relevant", "Not Relevant"),
        ("'Low Quality': the film is blurred", "Low Quality"),
        ("It is not High Quality", None),
        ("It isn't of low quality", None),
        ("Not Relevant, or Low Quality", None),
        ("High", None),
        ("", None),
    ],
)
def test_free_words_that_name_one_class_are_read(answer: str, quality: str | None) -> None:
    assert rubrics.mentioned(answer) == quality


def test_a_letter_is_no_answer_where_names_were_asked_for() -> None:
    form = rubrics.Form("{prompt}", letters=False)
    assert (form.read("A"), form.read("High Quality")) == (None, "High Quality")


def test_a_caption_longer_than_the_context_is_cut_counted_and_named(
    folders: dict[str, Path], films: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    judge = load(folders["llava"])
    short = judge.network.inputs(films[:1], [judge.form.ask("")])["input_ids"].shape[1]
    judge.network.context = short + judge.room + 10
    with caplog.at_level(logging.WARNING):
        found = judge.judge(films[:2], ["0123456789abcdef", "short"], NO_LABELS[:2])
    assert [verdict.details.get("prompt_tokens_cut") for verdict in found] == [6, None]
    assert "1 of 2 captions were cut, by up to 6 tokens" in caplog.text
    assert logs(found)[0] == pytest.approx(logs(judge.judge(films[:1], ["0123456789"], NO_LABELS[:1]))[0], abs=1e-4)
    judge.network.context = short - 5
    with pytest.raises(ValueError, match=r"the rubric and the film alone are .* tokens longer than"):
        judge.judge(films[:1], ["x"], NO_LABELS[:1])


def test_an_answer_that_melts_into_the_template_is_refused(folders: dict[str, Path]) -> None:
    network = load(folders["llava"]).network
    words = network.tokenizer

    class Merging:
        """A tokenizer that merges the colon of the template with what follows."""

        unk_token_id = 0

        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            ids = words(text, **options)["input_ids"]
            return {"input_ids": [*ids[:-2], 999] if text.endswith(":A") else ids}

    network.tokenizer = Merging()
    with pytest.raises(ValueError, match=r"leaves the tokens before it alone.*set `answer_prefix`"):
        network.answer_ids("A")


def test_weights_that_are_missing_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["llava"], tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    weights = load_file(path)
    del weights["multi_modal_projector.linear_1.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of LlavaForConditionalGeneration"):
        load(tmp_path / "broken")


def test_the_verdict_says_who_judged_with_which_rubric(folders: dict[str, Path], tmp_path: Path) -> None:
    rubric = tmp_path / "mine.md"
    rubric.write_text("Is this {prompt}?")
    judge = load(folders["llava"], rubric=str(rubric))
    assert judge.identity["rubric_hash"] == judges.rubric_hash("Is this {prompt}?")
    assert judge.identity["revision"] == auto.version(str(folders["llava"]), None)
    words = judges.described(judge)
    assert words == f"tiny @{judge.identity['revision'][:12]} rubric:{judge.identity['rubric_hash'][:12]}"
    rubric.write_text("Is it {prompt}?")
    assert load(folders["llava"], rubric=str(rubric)).identity["rubric_hash"] != judge.identity["rubric_hash"]


def test_the_filter_keeps_what_an_auditor_needs(folders: dict[str, Path], tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(images.to_png(np.full((30, 30), 80 * number, np.uint8)))
    captions = ["edema", "e" * 3000, "no finding"]
    (tmp_path / "t.csv").write_text("path,prompt\n" + "".join(f"{n}.png,{text}\n" for n, text in enumerate(captions)))
    (tmp_path / "v.yaml").write_text(f"name: v\njudge: vlm\nmodel: {folders['llava']}\nanswers: labels\n")
    arguments = ["--images", str(tmp_path / "t.csv"), "--judge", str(tmp_path / "v.yaml")]
    assert room_filter.main([*arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    rows = shards.Rows(shards.parquet_files(tmp_path / "out"))
    stored = [json.loads(text) for text in rows.column("quality_scores")]
    for one, quality, judge in zip(stored, rows.column("quality"), rows.column("judge"), strict=True):
        assert quality == max(records.QUALITIES, key=one.__getitem__)
        assert set(one["log_probs"]) == set(records.QUALITIES)
        assert judge == f"v @{one['judged_by']['revision'][:12]} rubric:{one['judged_by']['rubric_hash'][:12]}"
    assert [one.get("prompt_tokens_cut", 0) > 0 for one in stored] == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read_out": "guess"}, "read_out must be one of .*got 'guess'"),
        ({"packing": "tight"}, "packing must be one of"),
        ({"order": ["High Quality"]}, "order must name each of"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"server": {"base_url": "http://localhost"}}, "`server:` belongs to judge: server"),
        ({"dtype": "int8"}, "dtype must be one of"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judges.JudgeRecipe("j", "vlm", "m", **change)
