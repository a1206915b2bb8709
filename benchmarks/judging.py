"""What a judge's read-outs cost: scores against generated words, labels at once against one by one, and what stands
around the bare model. One random LLaVA (20 million weights, 576 image tokens), the same films, CPU time, best round.

    python benchmarks/judging.py                       # one thread, about 90 s
    python benchmarks/judging.py --batch-size 4
    python benchmarks/judging.py --device cuda --batch-size 32 --films 128

What a score saves is words: against an answer of one letter it saves nothing, and against long ones less in a batch
than film by film, which is how the published protocol runs. Both stand in the table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthchex import judges, room
from synthchex.judges import scoring
from synthchex.judges.vlm import VisionLanguageJudge

RUBRICS = room("filtering") / "prompts"
CAPTION = "Mild cardiomegaly with small bilateral pleural effusions; no pneumothorax or focal consolidation is seen."
TOKENS = (4, 16, 64, 128)
TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT :"
)


def main() -> None:
    """Build the model, time every read-out in turns, print the table and the ratios."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    films = [np.random.default_rng(seed).integers(0, 256, (512, 512), np.uint8) for seed in range(options.films)]
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        cases = read_outs(Path(folder), films, options)
        around = overhead(Path(folder), films, options)
    seconds = timed(cases, options)
    bare = seconds["bare model, one forward"]
    print(
        f"\n{options.films} films in batches of {options.batch_size}, {options.device}, {options.threads} thread(s)\n"
    )
    print("| read-out | ms per film | films/s | of one forward |\n|---|---|---|---|")
    for name, spent in seconds.items():
        print(f"| {name} | {1000 * spent / options.films:.1f} | {options.films / spent:.2f} | {spent / bare:.2f} |")
    print("\n| ratio | measured | bar |\n|---|---|---|")
    found = [*ratios(seconds), ("what a judge spends around the model", f"{100 * around:.1f} %", "<= 10 %")]
    for name, value, bar in found:
        print(f"| {name} | {value} | {bar} |")


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--films", type=int, default=4)
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", default="cpu")
    return options


def ratios(seconds: dict[str, float]) -> list[tuple[str, str, str]]:
    """What is measured against a bar, or for the record."""
    score = seconds["score, letters"]
    apart, bars = seconds["score, labels, separate"], {64: ">= 3x"}
    words = {count: seconds[f"generate, {count} tokens"] / score for count in TOKENS}
    return [
        *(
            (f"score against {count} generated tokens", f"{found:.2f}x", bars.get(count, "-"))
            for count, found in words.items()
        ),
        ("labels packed against separate", f"{apart / seconds['score, labels, packed']:.2f}x", "-"),
        ("labels by cache against separate", f"{apart / seconds['score, labels, cache']:.2f}x", "-"),
        ("labels packed against letters", f"{seconds['score, labels, packed'] / score:.2f}x", "-"),
    ]


def timed(cases: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, float]:
    """Least seconds of each case over rounds in which all take turns: of the CPU, or of the wall where a GPU works."""
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(options.rounds):
        for name, case in cases.items():
            began = clock()
            case()
            if options.device != "cpu":
                torch.cuda.synchronize()
            best[name] = min(best[name], clock() - began)
    return best


def read_outs(folder: Path, films: list[np.ndarray], options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Everything that is timed, by name; each judges all films, in batches."""
    batches = [films[start : start + options.batch_size] for start in range(0, len(films), options.batch_size)]

    def load(**changes: Any) -> VisionLanguageJudge:
        return load_judge(folder, options, **changes)

    def judged(judge: VisionLanguageJudge) -> Callable[[], Any]:
        return lambda: [judge.judge(batch, [CAPTION] * len(batch), [{}] * len(batch)) for batch in batches]

    letters = load()
    ready = [letters.network.inputs(batch, [letters.form.ask(CAPTION)] * len(batch)) for batch in batches]
    print(f"{sum(p.numel() for p in letters.network.model.parameters()) / 1e6:.1f} million weights, ", end="")
    print(f"{ready[0]['input_ids'].shape[1]} tokens per film")
    cases: dict[str, Callable[[], Any]] = {
        "bare model, one forward": lambda: [bare(letters, inputs) for inputs in ready],
        "score, letters": judged(letters),
    }
    for way in scoring.WAYS:
        judge = load(answers="labels", packing=way)
        assert judge.packing == way
        cases[f"score, labels, {way}"] = judged(judge)
    cases["generate, one of the labels"] = judged(load(read_out="generate", answers="labels"))
    for count in TOKENS:
        # "published" asks nothing twice; random weights end no answer early.
        cases[f"generate, {count} tokens"] = judged(load(read_out="published", max_new_tokens=count))
    return cases


def load_judge(folder: Path, options: argparse.Namespace, **changes: Any) -> VisionLanguageJudge:
    """A judge of the random model."""
    recipe = judges.JudgeRecipe("random", "vlm", str(folder), **changes)
    found = judges.load_judge(recipe, rubrics=RUBRICS, device=options.device)
    assert isinstance(found, VisionLanguageJudge)
    return found


def overhead(folder: Path, films: list[np.ndarray], options: argparse.Namespace) -> float:
    """Seconds of a judge outside the model for each second inside it, both of the same calls; least of the rounds."""
    judge, clock = load_judge(folder, options), time.process_time if options.device == "cpu" else time.perf_counter
    began, inside = [0.0], [0.0]

    def begin(*given: Any) -> None:
        began[0] = clock()

    def end(*given: Any) -> None:
        if options.device != "cpu":
            torch.cuda.synchronize()
        inside[0] += clock() - began[0]

    judge.network.model.register_forward_pre_hook(begin)
    judge.network.model.register_forward_hook(end)
    least = float("inf")
    for _ in range(options.rounds):
        inside[0], start = 0.0, clock()
        for first in range(0, len(films), options.batch_size):
            batch = films[first : first + options.batch_size]
            judge.judge(batch, [CAPTION] * len(batch), [{}] * len(batch))
        least = min(least, (clock() - start) / inside[0] - 1)
    return least


def bare(judge: VisionLanguageJudge, inputs: Any) -> Any:
    """The model alone, on inputs that are ready."""
    with torch.inference_mode():
        return judge.network.model(**inputs, logits_to_keep=1).logits


def build(folder: Path) -> None:
    """A random LLaVA with CLIP's 336 px in patches of 14, and a tokenizer of the rubric's words."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    torch.manual_seed(0)
    text = f"{judges.read_rubric('quality', RUBRICS)} {CAPTION} USER ASSISTANT : . , A B C D Answer with one letter of"
    cut = pre_tokenizers.Whitespace()
    words = ["<unk>", "<s>", "</s>", "<pad>", "<image>", *dict.fromkeys(word for word, _ in cut.pre_tokenize_str(text))]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = cut
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=336, patch_size=14, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=1024,
        ),
        text_config=LlamaConfig(
            vocab_size=8000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1024,
            max_position_embeddings=2048, eos_token_id=7999,
        ),
        image_token_index=4,
        vision_feature_layer=-2,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    films = LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    LlavaProcessor(
        films, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    main()
