"""Report writers: what their loss is of, which films they take, what a killed run does, what is told of it all."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from synthchex import phantom
from synthchex.data import recipes
from synthchex.data.records import LABELS
from synthchex.utility.reports import cases, labels, learner, results, scoring, units, writers
from synthchex.utility.reports.recipe import CONFIGS, ReportRecipe

sys.path.insert(0, str(Path(__file__).parent))
import tiny_vlms

Inside = Callable[..., "subprocess.CompletedProcess[str]"]
FILMS = [np.full((40, 36), value, np.uint8) for value in (20, 90, 160)]
TOLD = ["", "cough and fever for three days", "fall"]
REPORTS = ["no acute abnormality", "large left pleural effusion", "pacemaker in place . mild cardiomegaly"]


def captioner(folder: Path, *, wide: int = 4, deep: int = 1, dropout: float = 0.1) -> Path:
    """A vision encoder-decoder with random weights and the words of the phantom grammar, for films of 64 px.

    docs/utility-reports.md was measured with one of wide=32, deep=2, dropout=0.
    """
    words = ["<pad>", "<s>", "</s>", "<unk>", *phantom.vocabulary()]
    made = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    sight = transformers.SegformerConfig(
        num_encoder_blocks=3, depths=[1, deep, deep], hidden_sizes=[wide, 2 * wide, 4 * wide],
        num_attention_heads=[1, 2, 4], sr_ratios=[4, 2, 1], patch_sizes=[7, 3, 3], strides=[4, 2, 2],
        mlp_ratios=[2, 2, 2], reshape_last_stage=False, hidden_size=4 * wide, drop_path_rate=0.0,
        hidden_dropout_prob=dropout,
    )  # fmt: skip
    text = transformers.GPT2Config(
        vocab_size=len(words), n_positions=64, n_embd=4 * wide, n_layer=deep, n_head=4, add_cross_attention=True,
        is_decoder=True, bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(sight, text)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = transformers.VisionEncoderDecoderModel(config=config)
    model.generation_config = transformers.GenerationConfig(decoder_start_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    half = [0.5, 0.5, 0.5]
    ViTImageProcessorPil(size={"height": 64, "width": 64}, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


MODELS = {**tiny_vlms.MODELS, "captioner": captioner}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model by name, made once."""
    folder = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            path.mkdir()
            MODELS[name](path)
        return path

    return make


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom films as tables: 40 real of 20 patients, 24 synthetic, 16 of other patients to test on."""
    folder = tmp_path_factory.mktemp("sets")
    for name, count, seed in (("real", 40, 1), ("synthetic", 24, 2), ("test", 16, 3)):
        made = phantom.make(count, size=64, seed=seed)
        (folder / name).mkdir()
        rows = ["image,patient_id,findings,reason"]
        for row in range(count):
            Image.fromarray(made.images[row]).save(folder / name / f"{name}{row}.png")
            rows.append(f'{name}{row}.png,{name}-{row // 2},"{made.reports[row]}",cough')
        (folder / name / "films.csv").write_text("\n".join(rows) + "\n")
    return folder


def tiny(model: Path, **changes: Any) -> ReportRecipe:
    """The recipe `small` for a tiny model."""
    return recipes.read(CONFIGS / "small.yaml", ReportRecipe, model=str(model), max_new_tokens=6, **changes)


def command(sets: Path, model: Path, out: Path, *more: object) -> list[object]:
    """A short run of the command on the captioner."""
    return [
        "utility-reports", "--real", sets / "real/films.csv", "--synthetic", sets / "synthetic/films.csv",
        "--test", sets / "test/films.csv", "--model", model, "--recipe", "small", "--out", out, "--labeller", "phantom",
        "--percentages", 50, 100, "--max-train-steps", 4, "--train-batch-size", 4, "--max-new-tokens", 8, "--quiet",
        *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(sets: Path, models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    from synthchex import cli

    out = tmp_path_factory.mktemp("run") / "out"
    assert cli.main([str(word) for word in command(sets, models("captioner"), out, "--csv", "made")]) == 0
    return out


def reports_in(out: Path) -> dict[str, list[str]]:
    """What was written, by unit."""
    found = sorted((out / "units").glob("*/reports/data/*.parquet"))
    return {path.parts[-4]: pq.read_table(path)["report"].to_pylist() for path in found}


def losses_in(out: Path) -> dict[str, list[float]]:
    logs = sorted((out / "units").glob("*/log.jsonl"))
    return {path.parts[-2]: [json.loads(line)["loss"] for line in path.read_text().splitlines()] for path in logs}


# The models


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl", "idefics3", "captioner"])
def test_the_loss_is_of_the_reports_tokens_only(models: Callable[[str], Path], name: str) -> None:
    writer = writers.load(tiny(models(name)), "cpu")
    ids = writer.answers(REPORTS).ids
    assert all(row[-1] == writer.end for row in ids)
    with torch.no_grad():
        ours = float(writer.losses(FILMS, TOLD, ids))
        labels = writers.padded(ids, writers.IGNORED, "cpu")
        if isinstance(writer, writers.ChatWriter):
            asked = writer.network.inputs(FILMS, [writer.recipe.question(text) for text in TOLD])
            inputs = writers.with_answers(writer.model, asked, ids, writer.pad)
            before = torch.full_like(asked["input_ids"], writers.IGNORED)
            theirs = writer.model(**inputs, labels=torch.cat([before, labels], 1)).loss
        else:
            assert isinstance(writer, writers.CaptionWriter)
            theirs = writer.model(pixel_values=writer._pixels(FILMS), labels=labels).loss
    assert ours == pytest.approx(float(theirs) * sum(map(len, ids)), rel=1e-4)


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen3_vl", "captioner"])
def test_padding_changes_neither_losses_nor_reports(models: Callable[[str], Path], name: str) -> None:
    writer = writers.load(tiny(models(name)), "cpu")
    ids = writer.answers(REPORTS).ids
    with torch.no_grad():
        single = [float(writer.losses([film], [told], [one])) for film, told, one in zip(FILMS, TOLD, ids, strict=True)]
        assert float(writer.losses(FILMS, TOLD, ids)) == pytest.approx(sum(single), rel=1e-4)
    alone = [writer.write([film], [told])[0] for film, told in zip(FILMS, TOLD, strict=True)]
    assert writer.write(FILMS, TOLD) == alone


def test_a_report_that_reaches_the_longest_is_counted_as_truncated(models: Callable[[str], Path]) -> None:
    writer = writers.load(tiny(models("llava")), "cpu")
    assert [one.truncated for one in writer.write(FILMS, TOLD)] == [True] * 3  # random weights do not end
    writer.ends = list(range(len(writer.tokenizer)))
    assert [one.truncated for one in writer.write(FILMS, TOLD)] == [False] * 3


def test_a_training_report_that_is_too_long_is_cut_and_counted(models: Callable[[str], Path]) -> None:
    writer = writers.load(tiny(models("captioner"), max_length=5), "cpu")
    found = writer.answers(["no acute abnormality", "large left pleural effusion . mild cardiomegaly"])
    assert ([len(ids) for ids in found.ids], found.cut) == ([4, 5], 1)


def test_lora_trains_the_language_model_and_nothing_else(models: Callable[[str], Path]) -> None:
    recipe = tiny(models("llava"), full=False, rank=2)
    writer = writers.load(recipe, "cpu")
    before = {name: one.clone() for name, one in writer.model.named_parameters()}
    trained = learner.prepare(recipe, writer, seed=1)
    assert trained
    assert all("language_model" in name and ".lora_" in name for name in trained)
    writer.losses(FILMS, TOLD, writer.answers(REPORTS).ids).backward()
    assert any(float(one.grad.abs().max()) > 0 for name, one in trained.items() if ".lora_B." in name)
    after = {
        name.replace(".base_layer", ""): one for name, one in writer.model.named_parameters() if "lora" not in name
    }
    assert all(torch.equal(before[name], one) and one.grad is None for name, one in after.items())


def test_one_seed_makes_one_adapter(models: Callable[[str], Path]) -> None:
    found = []
    for seed in (1, 1, 2):
        recipe = tiny(models("llava"), full=False, rank=2)
        found.append(next(iter(learner.prepare(recipe, writers.load(recipe, "cpu"), seed=seed).values())))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_model_without_a_chat_template_is_refused(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_vlms.llava(folder)
    for path in (folder / "chat_template.jinja",):
        path.unlink()
    with pytest.raises(ValueError, match=r"chat template or a vision-encoder-decoder, got .* \(llava\) without one"):
        writers.load(tiny(folder), "cpu")


# Recipes


def test_the_benchmarks_settings_are_a_recipe() -> None:
    found = recipes.read(CONFIGS / "llava-rad.yaml", ReportRecipe)
    assert (found.rank, found.lora_alpha, found.lora_dropout, found.num_train_epochs) == (64, 128, 0.05, 5)
    assert (found.train_batch_size, found.learning_rate, found.lr_scheduler_type) == (16, 1e-4, "cosine")
    assert (found.warmup_ratio, found.mixed_precision, found.max_new_tokens) == (0.03, "bf16", 256)
    asked = found.question("cough {x}")
    assert asked.endswith("in the radiology image given the following indication: cough {x}")
    assert found.question(" ") == "Provide a description of the findings in the radiology image."
    assert (found.steps(160), ReportRecipe("x", max_train_steps=7).steps(160)) == (50, 7)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mixed_precision": "fp16"}, r"mixed_precision must be one of \['no', 'bf16'\], got 'fp16'"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"full": True, "target_modules": ("q",)}, "leave target_modules out"),
        ({"prompt_indication": "What?"}, r"prompt_indication must hold \{indication\}, got 'What\?'"),
        ({"learning_rate": "fast"}, "learning_rate must be float, got 'fast'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ReportRecipe("odd", **changes)


# The films


def test_a_csv_opens_where_the_benchmark_loads_it_as_json(sets: Path) -> None:
    """CheXGenBench 3.13: a CSV goes to `json.load`, and `columns` is asked of a dict."""
    found = cases.open_cases(str(sets / "real/films.csv"))
    assert (len(found), found.report_column, set(found.indications)) == (40, "findings", {"cough"})
    assert found.patients is not None
    assert found.patients[:3] == ["real-0", "real-0", "real-1"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved"])
def test_any_other_table_opens_too(sets: Path, tmp_path: Path, kind: str) -> None:
    import pandas as pd

    frame = pd.read_csv(sets / "test/films.csv")
    frame["image"] = [str(sets / "test" / name) for name in frame["image"]]
    target = tmp_path / f"films.{kind}"
    if kind == "jsonl":
        frame.to_json(target, orient="records", lines=True)
    elif kind == "parquet":
        frame.to_parquet(target)
    else:
        import datasets

        datasets.Dataset.from_pandas(frame).save_to_disk(str(target))
    found, wanted = cases.open_cases(str(target)), cases.open_cases(str(sets / "test/films.csv"))
    assert (list(found.reports), list(found.indications)) == (list(wanted.reports), list(wanted.indications))
    assert np.array_equal(found.film(5), wanted.film(5))


def test_films_without_a_report_or_pixels_are_left_out_and_counted(sets: Path, tmp_path: Path) -> None:
    rows = (sets / "test/films.csv").read_text().splitlines()
    rows[2], rows[4] = rows[2].replace("test1.png", "gone.png"), 'test3.png,test-1,"",cough'
    table = tmp_path / "films.csv"
    table.write_text("\n".join(rows))
    found = cases.open_cases(str(table), image_dir=str(sets / "test"))
    assert {reason: count for reason, count in found.notes.items() if count} == {"missing": 1, "prompt-empty": 1}
    assert [Path(str(one)).stem for one in found.films.ids[:4]] == ["test0", "test2", "test4", "test5"]
    assert found.indications == ["cough"] * 14


def test_a_sample_is_not_the_first_rows(sets: Path) -> None:
    """CheXGenBench 3.13: 10 % are the first rows, those of the first patients."""
    found = cases.open_cases(str(sets / "real/films.csv"))
    small, large = cases.sample(found, 8, seed=0), cases.sample(found, 20, seed=0)
    assert set(small) < set(large)
    assert list(small) != list(range(8))
    assert list(cases.sample(found, 8, seed=1)) != list(small)
    turned = found.take(range(39, -1, -1))
    assert {turned.films.ids[row] for row in cases.sample(turned, 8, seed=0)} == {found.films.ids[row] for row in small}
    with pytest.raises(ValueError, match="between 1 and 40, got 41"):
        cases.sample(found, 41, seed=0)


def test_a_patient_of_the_test_set_is_refused(sets: Path) -> None:
    real, test = (cases.open_cases(str(sets / name / "films.csv")) for name in ("real", "test"))
    assert cases.check_apart(real, test, "real") == []
    with pytest.raises(ValueError, match="no patient of the test set in the real set, got 2; split by patient"):
        cases.check_apart(real, real.take([0, 1, 2]), "real")


def test_a_film_of_the_test_set_is_refused_where_patients_are_unknown(sets: Path) -> None:
    from dataclasses import replace

    real, test = (cases.open_cases(str(sets / name / "films.csv")) for name in ("real", "test"))
    unknown = replace(real, films=replace(real.films, patients=None))
    assert "could not be checked" in cases.check_apart(unknown, test, "real")[0]
    with pytest.raises(ValueError, match="no film of the test set in the real set, got 3"):
        cases.check_apart(unknown, real.take([0, 1, 2]), "real")


def test_films_of_unknown_patients_are_not_of_one_patient(sets: Path) -> None:
    """Rows of two tables have the same numbers."""
    from dataclasses import replace

    real, test = (cases.open_cases(str(sets / name / "films.csv")) for name in ("real", "test"))
    real, test = (
        replace(one, films=replace(one.films, patients=["unknown, row 0", *(one.films.patients or ())[1:]]))
        for one in (real, test)
    )
    assert "could not be checked" in cases.check_apart(real, test, "real")[0]


def test_a_split_leaves_the_same_film_on_one_side(sets: Path) -> None:
    """Films alike of several patients would be refused by the check that follows."""
    from dataclasses import replace

    real = cases.open_cases(str(sets / "real/films.csv"))
    assert len(set(real.patients or ())) > 6
    doubled = replace(real, digests=[f"{row % 20}" for row in range(len(real))])
    train, test = cases.split(doubled, 0.3)
    assert cases.check_apart(train, test, "real") == []


def test_films_with_a_reason_to_be_dropped_are_noticed(sets: Path, tmp_path: Path) -> None:
    from synthchex.commands import utility_reports

    lines = (sets / "synthetic/films.csv").read_text().splitlines()
    reasons = ["drop_reason", "blurred", *[""] * (len(lines) - 2)]
    table = tmp_path / "judged.csv"
    table.write_text("\n".join(f"{line},{reason}" for line, reason in zip(lines, reasons, strict=True)) + "\n")
    words = ["--synthetic", table, "--image-dir", sets / "synthetic", sets / "synthetic", "--test",
             sets / "test/films.csv", "--recipe", "small", "--out", tmp_path / "o"]  # fmt: skip
    words[words.index(sets / "synthetic")] = sets / "test"
    notes = utility_reports.open_sets(utility_reports.parser().parse_args([str(word) for word in words]))[2]
    assert notes == ["synthetic: 1 films have a reason to be dropped (column drop_reason) and are used"]


def test_synthetic_films_made_from_test_reports_are_noticed(sets: Path) -> None:
    found = {name: cases.open_cases(str(sets / name / "films.csv")) for name in ("real", "synthetic", "test")}
    train = {"real": found["real"], "synthetic": found["synthetic"]}
    assert cases.check_prompts(train, found["test"]) == []
    assert cases.check_prompts({"real": found["real"]}, found["test"]) == []
    told = cases.check_prompts({**train, "synthetic": found["test"]}, found["test"])
    assert "100% of the test reports stand in the synthetic training set" in told[0]


def test_a_split_is_by_patient(sets: Path) -> None:
    train, test = cases.split(cases.open_cases(str(sets / "real/films.csv")), 0.3)
    assert len(train) + len(test) == 40
    assert not set(train.patients or ()) & set(test.patients or ())
    with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
        cases.split(train, 1)


# A run


def test_a_run_says_what_it_found(finished: Path) -> None:
    told = json.loads((finished / "results.json").read_text())["report_generation"]
    arms = {(one["arm"], one["percentage"]): one for one in told["arms"]}
    assert {key: one["films"] for key, one in arms.items()} == {
        ("real", 50): 12, ("synthetic", 50): 12, ("real", 100): 24, ("synthetic", 100): 24,
    }  # fmt: skip
    assert {one["steps"] for one in told["arms"]} == {4}
    assert [one["epochs"] for one in told["arms"]] == pytest.approx([16 / 12, 16 / 12, 16 / 24, 16 / 24])
    assert told["test"] == {"films": 16, "patients": 8}
    assert arms["synthetic", 50]["difference"]["to"] == "real, 50 %"
    assert arms["real", 50]["difference"] is None
    score = arms["real", 100]["scores"]["bleu_1"]
    assert score["interval"][0] <= score["median"] <= score["interval"][1]
    assert set(told["baseline"]["scores"]) == set(scoring.NAMES) - {"f1_radgraph"}
    page = (finished / "report.html").read_text()
    assert "Report generation" in page
    assert (finished / "plots/report_generation.png").exists()
    assert (finished / "units").stat().st_mode & 0o077 == 0


def test_the_benchmarks_files_keep_their_names(finished: Path) -> None:
    names = sorted(path.name for path in finished.glob("*.csv"))
    assert names == sorted(
        f"{kind}_made_percentage_{share}.csv" for kind in ("main", "breakdown_p", "breakdown_n") for share in (50, 100)
    )
    rows = (finished / "main_made_percentage_100.csv").read_text().splitlines()
    assert rows[0] == "metric,median,ci_l,ci_h"
    assert [row.split(",")[0] for row in rows[1:4]] == ["BLEU-1", "BLEU-4", "ROUGE-L"]
    labels_of = (finished / "breakdown_p_made_percentage_50.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in labels_of] == ["label", *LABELS]


def test_a_run_that_is_done_trains_nothing_again(
    finished: Path, sets: Path, models: Callable[[str], Path], inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "results.json").read_text()
    monkeypatch.setattr(writers, "load", lambda *words: pytest.fail("a model was loaded"))
    assert inside(*command(sets, models("captioner"), finished)).returncode == 0
    after = json.loads((finished / "results.json").read_text())
    assert after["report_generation"] == json.loads(before)["report_generation"]
    changed = inside(*command(sets, models("captioner"), finished, "--learning-rate", 0.5))
    assert "holds another run (recipe.learning_rate: 0.001 there, 0.5 now)" in changed.stderr


@pytest.mark.parametrize("at", ["step", "write"])
def test_a_killed_run_goes_on_to_the_same_reports(
    finished: Path, sets: Path, models: Callable[[str], Path], tmp_path: Path, inside: Inside,
    monkeypatch: pytest.MonkeyPatch, at: str,
) -> None:  # fmt: skip
    calls, of, limit = [0], {"step": learner.Learner, "write": writers.CaptionWriter}[at], {"step": 7, "write": 4}[at]
    whole = getattr(of, at)

    def dies(self: Any, *words: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == limit:
            raise KeyboardInterrupt
        return whole(self, *words, **named)

    more = ("--percentages", 100, "--checkpointing-steps", 2)
    wanted = command(sets, models("captioner"), tmp_path / "out", *more)
    with monkeypatch.context() as patch:
        patch.setattr(of, at, dies)
        assert inside(*wanted).returncode == 130
    trained: list[str] = []
    monkeypatch.setattr(units.learner, "fit", _noted(learner.fit, trained))
    assert inside(*wanted).returncode == 0
    assert trained == ["synthetic-p100-s0"]
    for found in (reports_in, losses_in):
        assert found(tmp_path / "out") == {name: rows for name, rows in found(finished).items() if "-p100-" in name}
    assert not list((tmp_path / "out").rglob("checkpoint-*"))


def _noted(call: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def noted(student: Any, chosen: Any, folder: Path, **named: Any) -> Any:
        calls.append(folder.name)
        return call(student, chosen, folder, **named)

    return noted


def test_passes_change_rounding_only(sets: Path, tmp_path: Path) -> None:
    from accelerate import Accelerator

    model = captioner(tmp_path / "model", dropout=0.0)
    train = cases.open_cases(str(sets / "real/films.csv"))
    found = []
    for passes in (1, 2):
        recipe = tiny(model, train_batch_size=8)
        student = learner.make(recipe, writers.load(recipe, "cpu"), Accelerator(cpu=True), seed=0, steps=3)
        found.append([student.step(train, step, accumulation=passes, num_workers=0)["loss"] for step in (1, 2, 3)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert len(set(found[0])) == 3


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Accelerate fixes the precision of a process at its first use."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("other_precision")
def test_an_adapter_is_trained_by_the_command_and_kept(
    sets: Path, models: Callable[[str], Path], tmp_path: Path, inside: Inside
) -> None:
    from safetensors.torch import load_file

    done = inside(
        "utility-reports", "--synthetic", sets / "synthetic/films.csv", "--test", sets / "test/films.csv", "--quiet",
        "--recipe", "llava-rad", "--model", models("llava"), "--rank", 2, "--max-train-steps", 2, "--json",
        "--train-batch-size", 2, "--max-new-tokens", 4, "--percentages", 100, "--keep-models", "--out", tmp_path / "o",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "o/units/synthetic-p100-s0/model/adapter.safetensors")
    assert any(float(one.abs().max()) > 0 for name, one in weights.items() if ".lora_B." in name)
    told = json.loads((tmp_path / "o/results.json").read_text())["report_generation"]
    assert told["arms"][0]["truncated"] == [16]
    assert any("16 of 16 reports were cut at the longest" in text for text in told["warnings"])
    assert set(told["arms"][0]["scores"]) == {"bleu_1", "bleu_4", "rouge_l"}
    assert Path(json.loads(done.stdout)["report"]).exists()


@pytest.mark.parametrize("policy", ["credentialed", "open"])
def test_reports_are_shown_of_open_films_only(finished: Path, sets: Path, tmp_path: Path, policy: str) -> None:
    test = cases.open_cases(str(sets / "test/films.csv"))
    train = {arm: cases.open_cases(str(sets / arm / "films.csv")) for arm in units.ARMS}
    plan = units.plan(units.ARMS, [50, 100], [0])
    judge = scoring.Judge(test.reports, test.patients, labeller=labels.phantom, resamples=20)
    recipe = tiny(Path("model"))
    told = results.summarise(finished, plan, judge, train, test, recipe, policy=policy, notes=[], labeller="phantom")
    from synthchex.report import write_report

    page = write_report({"report_generation": told}, tmp_path)
    text = page.read_text() + json.dumps(told)
    shown = [report for report in {*test.reports, *train["real"].reports} if len(report.split()) > 4 and report in text]
    assert bool(shown) == (policy == "open")


def test_reports_of_another_script_are_noticed() -> None:
    told = results.wordless(scoring.Judge(["\u6b63\u5e38", "normal"], None, resamples=5))
    assert "1 of 2 true reports have no word of a to z" in told[0]
    assert results.wordless(scoring.Judge(["\u6b63\u5e38", "normal"], None, resamples=5, tokenizer="spaces")) == []


def test_a_name_of_csv_files_is_checked_before_the_training(tmp_path: Path) -> None:
    from synthchex.commands import utility_reports

    utility_reports.check_out(tmp_path, "llava-rad")
    with pytest.raises(ValueError, match="--csv must be a part of a file's name, got 'a/b'"):
        utility_reports.check_out(tmp_path, "a/b")


def test_refusals_say_what_was_expected(
    sets: Path, models: Callable[[str], Path], tmp_path: Path, inside: Inside
) -> None:
    base = ["utility-reports", "--recipe", "small", "--model", models("captioner"), "--out", tmp_path / "o"]
    real = ["--real", sets / "real/films.csv"]
    for more, said in (
        ([], "expected --real, --synthetic or both to train on, got neither"),
        (real, "expected either --test or --test-share"),
        ([*real, "--test", sets / "real/films.csv"], "no patient of the test set in the real set, got 20"),
        ([*real, "--test-share", 0.2, "--percentages", 0], "percentages must be above 0 and at most 100, got 0"),
        ([*real, "--test-share", 0.2, "--seeds", 1, 1], "seeds that stand once each, got [1, 1]"),
        ([*real, "--test-share", 0.2, "--train-batch-size", 3, "--gradient-accumulation-steps", 2], "got 3 and 1 x 2"),
        ([*real, "--test-share", 0.2, "--report-column", "x"], "has no column 'x'"),
    ):
        done = inside(*base, *more)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_tracker_that_is_not_installed_is_named_before_the_training(
    sets: Path, models: Callable[[str], Path], tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = inside(*command(sets, models("captioner"), tmp_path / "o", "--report-to", "tensorboard"))
    assert (done.returncode, not (tmp_path / "o/units").exists()) == (2, True)
    assert "--report-to tensorboard needs tensorboard: pip install tensorboard" in done.stderr


# The scores


def test_the_phantom_labeller_reads_its_grammar_exactly() -> None:
    reports, true = phantom.write_reports(1500, seed=5)
    assert np.array_equal(labels.phantom(reports), true)
    assert not labels.phantom(["", "normal"]).any()


def test_true_reports_score_1_and_the_difference_of_a_system_to_itself_is_0() -> None:
    reports, _ = phantom.write_reports(80, seed=1)
    judge = scoring.Judge(reports, [str(row // 4) for row in range(80)], labeller=labels.phantom)
    perfect, constant = judge.told([reports]), judge.told([[scoring.commonest(reports)] * 80])
    values = {name: float(one.values.mean()) for name, one in perfect.measures.items()}
    assert values == pytest.approx(dict.fromkeys(judge.names, 1.0))
    assert scoring.difference(perfect.measures["rouge_l"], perfect.measures["rouge_l"], confidence=0.95) == {
        "value": 0, "interval": [0, 0],
    }  # fmt: skip
    gap = scoring.difference(perfect.measures["bleu_4"], constant.measures["bleu_4"], confidence=0.95)
    assert 0 < gap["interval"][0] < gap["value"] < gap["interval"][1]


def test_uncertain_counts_as_positive_with_a_plus_only() -> None:
    true, found = np.zeros((4, 14), int), np.zeros((4, 14), int)
    edema = LABELS.index("Edema")
    true[:, edema], found[:, edema] = [1, -1, -1, 0], [1, 1, 0, 0]
    states = iter([true, found])
    judge = scoring.Judge(["a"] * 4, None, labeller=lambda texts: next(states), resamples=10)
    scores = {name: float(one.values.mean()) for name, one in judge.told([["b"] * 4]).measures.items()}
    assert scores["micro_f1_14"] == pytest.approx(2 / 3)  # one of both, one of the writer alone
    assert scores["micro_f1_14_plus"] == pytest.approx(4 / 5)
    assert scores["macro_f1_5_plus"] == pytest.approx(4 / 5 / 5)


def test_films_of_a_patient_make_the_interval_wider() -> None:
    reports, _ = phantom.write_reports(60, seed=2)
    written = [text if row % 2 else "normal" for row, text in enumerate(reports)]
    runs = [text for text in reports for _ in range(3)], [text for text in written for _ in range(3)]
    wide = []
    for patients in ([str(row // 3) for row in range(180)], None):
        judge = scoring.Judge(runs[0], patients)
        low, high = scoring.row(judge.told([runs[1]]).measures["rouge_l"], confidence=0.95)["interval"]
        wide.append(high - low)
    assert wide[0] > 1.5 * wide[1]


def test_seeds_are_pooled_and_kept() -> None:
    reports, _ = phantom.write_reports(30, seed=3)
    judge = scoring.Judge(reports, None)
    found = scoring.row(judge.told([reports, [""] * 30]).measures["bleu_1"], confidence=0.95)
    assert (found["seeds"], found["value"]) == ([1, 0], 0.5)


def test_the_commonest_report_is_found_and_ties_are_settled() -> None:
    assert scoring.commonest(["b", "a", "b", "a", "c"]) == "a"


# RadEval, which is not needed to run the tests: a stand-in with its interface


@pytest.fixture
def radeval(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The modules of RadEval 2.2 that are called, with made-up models."""

    class F1CheXbert:
        TARGET_NAMES = (*(label for label in LABELS if label != "No Finding"), "No Finding")

        def __init__(self, *, device: str) -> None:
            self.device = device

        def get_labels(self, reports: list[str], mode: str) -> list[list[int]]:
            assert mode == "classification"
            return [[1 if "edema" in text and name == "Edema" else -1 if "may" in text and name == "No Finding" else 0
                     for name in self.TARGET_NAMES] for text in reports]  # fmt: skip

    class RadEval:
        def __init__(self, *, metrics: list[str], per_sample: bool, show_progress: bool) -> None:
            assert (metrics, per_sample) == (["radgraph"], True)

        def __call__(self, *, refs: list[str], hyps: list[str]) -> dict[str, list[float]]:
            return {"radgraph_partial": [float(one == other) for one, other in zip(refs, hyps, strict=True)]}

    base = types.ModuleType("radeval")
    base.RadEval = RadEval  # type: ignore[attr-defined]
    parts = {"radeval": base}
    for name in ("radeval.metrics", "radeval.metrics.f1chexbert", "radeval.metrics.f1chexbert.f1chexbert"):
        parts[name] = types.ModuleType(name)
    parts["radeval.metrics.f1chexbert.f1chexbert"].F1CheXbert = F1CheXbert  # type: ignore[attr-defined]
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    return base


def test_chexbert_through_radeval_has_our_order_of_labels(radeval: types.ModuleType) -> None:
    found = labels.load("chexbert", device="cpu")(["edema", "may be normal"])
    assert found[0].tolist() == [int(label == "Edema") for label in LABELS]
    assert found[1].tolist() == [-int(label == "No Finding") for label in LABELS]


def test_radgraph_through_radeval_is_a_mean_of_films(radeval: types.ModuleType) -> None:
    judge = scoring.Judge(["a", "b", "c", "d"], None, radgraph=labels.load_radgraph())
    assert judge.told([["a", "b", "c", "x"]]).measures["f1_radgraph"].values == pytest.approx([0.75])


def test_radeval_without_its_weights_says_which(radeval: types.ModuleType) -> None:
    def fails(**named: object) -> None:
        raise OSError("cannot find the file")

    radeval.RadEval = fails  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match=r"RadGraph could not be loaded \(cannot find the file\); it needs the archives"
    ):
        labels.load_radgraph()


def test_without_radeval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(ImportError, match=r"needs radeval, which is not installed: pip install 'synthchex\[reports\]'"):
        labels.load("chexbert", device="cpu")
    with pytest.raises(ValueError, match=r"labeller must be one of \['chexbert', 'phantom'\], got 'gpt'"):
        labels.load("gpt", device="cpu")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    sets: Path, tmp_path: Path, inside: Inside, synthchex: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    model = captioner(tmp_path / "model", dropout=0.0)
    alone, together = (command(sets, model, tmp_path / out, "--device", "cpu") for out in ("alone", "together"))
    assert inside(*alone).returncode == 0
    done = synthchex("launch", "--num-processes", 2, *together)
    assert done.returncode == 0, done.stderr
    wanted, found = losses_in(tmp_path / "alone"), losses_in(tmp_path / "together")
    assert found == {name: pytest.approx(values, rel=1e-4) for name, values in wanted.items()}
    assert reports_in(tmp_path / "together") == reports_in(tmp_path / "alone")
