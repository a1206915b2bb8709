"""HealthGPT on tiny random weights: H-LoRA against a loop, published names, prompts, where the image goes, padding."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from synthchex import judges, room
from synthchex.data import recipes
from synthchex.models import healthgpt
from synthchex.models.healthgpt_lora import Adapter, HLoRALinear, add_experts, load_adapter

WORDS = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
WIDTH, INNER, SIGHT, SIDE, PATCH = 32, 48, 24, 28, 7
RANK, ALPHA, EXPERTS, INDEX_TOKENS = 8, 6.0, 4, 5
SCALE = ALPHA / RANK * EXPERTS
SPARE_ROWS = 3  # rows of the language model beyond its tokenizer, as Phi-3 has
PREFIX = "base_model.model.model."
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
M3 = "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n<image>\nIs it good?<|end|>\n<|assistant|>\n"


def byte_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte; with `bos` each text begins with `<s>`."""
    words = [*WORDS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if bos:
        made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.add_tokens(list(WORDS[3:6]), special_tokens=True)
    fast.add_tokens(["<|end|>"])  # decoded like a word: only its id tells that it is the end
    return fast


def layers() -> dict[str, tuple[int, int]]:
    """Published names of the adapted layers, with their widths in and out."""
    shapes = {
        "self_attn.qkv_proj": (WIDTH, 3 * WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_up_proj": (WIDTH, 2 * INNER),
        "mlp.down_proj": (INNER, WIDTH),
    }
    return {f"layers.{layer}.{name}": shape for layer in range(2) for name, shape in shapes.items()}


def published() -> OrderedDict[str, torch.Tensor]:
    """An adapter file's tensors, as HealthGPT's own classes name them, in bfloat16."""
    torch.manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (width, out) in layers().items():
        shapes[f"{name}.lora_route.weight"] = (EXPERTS, width)
        shapes[f"{name}.lora_A.weight"] = (RANK, width)
        shapes[f"{name}.lora_B.weight"] = (out, RANK)
    shapes |= {"mm_projector.0.weight": (WIDTH, SIGHT), "mm_projector.0.bias": (WIDTH,)}
    shapes |= {"mm_projector.2.weight": (WIDTH, WIDTH), "mm_projector.2.bias": (WIDTH,)}
    return OrderedDict((PREFIX + name, (0.4 * torch.randn(shape)).bfloat16()) for name, shape in shapes.items())


def parts_saved(folder: Path) -> SimpleNamespace:
    """A language model, a CLIP model and an adapter in three folders, and the recipe that puts them together."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    text = Phi3Config(
        vocab_size=len(tokenizer) + SPARE_ROWS, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    Phi3ForCausalLM(text).save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    small = {"hidden_size": SIGHT, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 3}
    vision = {**small, "image_size": SIDE, "patch_size": PATCH, "initializer_factor": 2.0}
    CLIPModel(CLIPConfig(text_config={**small, "vocab_size": 9}, vision_config=vision)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder / "clip")  # fmt: skip
    (folder / "adapter").mkdir()
    torch.save(published(), folder / "adapter" / "com.bin")
    asked = {
        "language": str(folder / "language"), "vision": str(folder / "clip"), "adapter": "com.bin",
        "template": "phi3_instruct", "rank": RANK, "alpha": ALPHA, "experts": EXPERTS, "index_tokens": INDEX_TOKENS,
    }  # fmt: skip
    return SimpleNamespace(
        name="tiny", model=str(folder / "adapter"), revision="main", dtype="float32", load=asked, folder=folder
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The parts on disk."""
    return parts_saved(tmp_path_factory.mktemp("healthgpt"))


@pytest.fixture(scope="module")
def network(recipe: SimpleNamespace) -> healthgpt.HealthGPT:
    """The parts put together."""
    return healthgpt.load(recipe, device="cpu")


@pytest.fixture(scope="module")
def two() -> list[np.ndarray]:
    """A wide and a tall film."""
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, shape, np.uint8) for shape in ((20, 40), (60, 30))]


@torch.no_grad()
def looped(tokens: torch.Tensor, route: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """What experts add, one token and one expert at a time."""
    added = torch.zeros(*tokens.shape[:-1], high.shape[0])
    each = low.shape[0] // route.shape[0]
    for place in np.ndindex(*tokens.shape[:-1]):
        logits = [float(row @ tokens[place]) for row in route]
        powers = np.exp(np.array(logits) - max(logits))
        for expert, gate in enumerate(powers / powers.sum()):
            mine = slice(expert * each, (expert + 1) * each)
            added[place] += SCALE * float(gate) * (high[:, mine] @ (low[mine] @ tokens[place]))
    return added


def adapted(*, bias: bool = False) -> HLoRALinear:
    torch.manual_seed(5)
    layer = HLoRALinear(nn.Linear(10, 7, bias=bias), rank=RANK, alpha=ALPHA, experts=EXPERTS)
    nn.init.normal_(layer.lora_B.weight)
    return layer


@pytest.mark.parametrize("bias", [False, True])
def test_experts_equal_a_loop_over_tokens_and_experts(bias: bool) -> None:
    layer, tokens = adapted(bias=bias), torch.randn(2, 5, 10)
    by_loop = functional.linear(tokens, layer.weight, layer.bias) + looped(
        tokens, layer.lora_route.weight, layer.lora_A.weight, layer.lora_B.weight
    )
    assert layer.scaling == 3.0
    assert torch.allclose(layer(tokens), by_loop, atol=1e-5)


@pytest.mark.parametrize("expert", range(EXPERTS))
def test_with_one_gate_open_the_layer_equals_its_merged_weight(expert: int) -> None:
    layer, tokens = adapted(), torch.randn(6, 10)
    tokens[:, 0] = 1.0
    with torch.no_grad():
        layer.lora_route.weight.zero_()
        layer.lora_route.weight[expert, 0] = 1e4
    mine = slice(2 * expert, 2 * expert + 2)
    merged = layer.weight + SCALE * layer.lora_B.weight[:, mine] @ layer.lora_A.weight[mine]
    assert torch.allclose(layer(tokens), tokens @ merged.T, atol=1e-5)
    assert not torch.allclose(layer(tokens), tokens @ layer.weight.T, atol=1e-2)


def test_experts_that_are_not_loaded_add_nothing() -> None:
    base = nn.Linear(10, 7)
    layer, tokens = HLoRALinear(base, rank=4, alpha=8, experts=2), torch.randn(3, 10)
    assert layer.weight is base.weight
    assert torch.equal(layer(tokens), base(tokens))


def test_a_rank_that_experts_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="rank must be a positive multiple of experts, got rank 6 and 4 experts"):
        HLoRALinear(nn.Linear(2, 2), rank=6, alpha=1, experts=4)
    with pytest.raises(ValueError, match="expected linear layers to adapt, got none in ReLU"):
        add_experts(nn.ReLU(), rank=4, alpha=1, experts=4)


def test_experts_stand_on_the_language_model_alone(network: healthgpt.HealthGPT) -> None:
    found = {name for name, layer in network.model.named_modules() if isinstance(layer, HLoRALinear)}
    assert found == {f"model.language_model.{name}" for name in layers()}


def test_published_names_go_to_the_network_and_back(network: healthgpt.HealthGPT) -> None:
    held = Adapter(network.model).state_dict()
    file = published()
    rest = {name for name in held if ".lora_" not in name and ".mm_projector." not in name}
    assert set(held) - rest == set(file)
    assert all(torch.equal(held[name], value.float()) for name, value in file.items())
    weights = network.model.state_dict()
    inside = "model.language_model.layers.1.mlp.down_proj.lora_B.weight"
    assert torch.equal(weights[inside], file[PREFIX + "layers.1.mlp.down_proj.lora_B.weight"].float())
    bridge = weights["model.multi_modal_projector.linear_2.bias"]
    assert torch.equal(bridge, file[PREFIX + "mm_projector.2.bias"].float())


def test_prompts_are_the_published_strings(network: healthgpt.HealthGPT) -> None:
    assert network.prompt_text("Is it good?") == M3
    l14 = healthgpt.Processor(None, None, template="phi4_instruct", image_tokens=1, image_token_id=0)
    assert l14.prompt_text("Is it {good}?") == (
        "<|im_start|>system<|im_sep|>\nYou are a medieval knight and must provide explanations to modern people."
        "<|im_end|>\n<|im_start|>user<|im_sep|>\n<image>\nIs it {good}?<|im_end|>\n"
        "<|im_start|>assistant<|im_sep|>\n"
    )


def test_the_published_rubric_is_the_question_that_was_asked() -> None:
    rubric = judges.read_rubric("published", room("filtering") / "prompts")
    assert rubric.replace("{prompt}", "No edema.") == (
        "You are an expert radiologist and medical annotator. Your task is to assess the quality of an image given its "
        "description and classify the image as either 'High Quality', 'Medium Quality', or 'Low Quality'. Keep your "
        "responses limited to only these three options. If the image is not relevant to the description, respond with "
        "'Not Relevant'. \n Given the prompt No edema., classify the following image as 'High Quality', "
        "'Medium Quality', or 'Low Quality'"
    )


@pytest.mark.parametrize("bos", [False, True])
def test_the_image_stands_between_pieces_that_are_tokenized_alone(bos: bool) -> None:
    tokenizer = byte_tokenizer(bos=bos)
    processor = healthgpt.Processor(tokenizer, None, template="phi3_instruct", image_tokens=3, image_token_id=999)
    plain = byte_tokenizer()
    before, after = (plain(piece)["input_ids"] for piece in M3.split("<image>"))
    expected = [*([1] if bos else []), *before, 999, 999, 999, *after]
    assert processor.token_ids(M3) == expected, "one beginning at most, none after the image"


def test_placeholders_have_an_embedding_and_no_logit(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    inputs = network.inputs(two, ["a", "a longer question"])
    words = len(network.processor.tokenizer)
    assert network.model.config.image_token_id == words
    assert network.model.get_input_embeddings().weight.shape[0] == words + 1
    places = (inputs["input_ids"] == words).int()
    assert places.sum(1).tolist() == [16, 16]
    assert network.logits(inputs).shape == (2, words)
    start = len(byte_tokenizer()(M3.split("<image>")[0])["input_ids"])
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    assert padding == [len("a longer question") - 1, 0]
    assert places.argmax(1).tolist() == [start + padding[0], start]
    assert inputs["attention_mask"][0].tolist() == sorted(inputs["attention_mask"][0].tolist()), "padded on the left"


def test_a_question_with_an_image_of_its_own_is_refused(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="expected one <image> in a prompt, got 2; take it out of the question"):
        network.inputs(two[:1], ["what is <image>?"])


def test_films_and_questions_must_be_as_many(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"expected one image for each of 1 prompts, got \[1, 1\]"):
        network.inputs(two, ["one"])
    with pytest.raises(ValueError, match=r"expected one image for each of 1 prompts, got \[2\]"):
        network.processor(text=[M3], images=[[Image.new("L", (4, 4))] * 2])


def test_a_prompt_longer_than_the_context_is_refused(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"expected prompts of at most 512 tokens, got \d+; shorten the caption"):
        network.inputs(two[:1], ["x" * 512])


@pytest.mark.parametrize(
    ("shape", "rows", "columns"), [((2, 5), (1, 3), (0, 5)), ((5, 2), (0, 5), (1, 3)), ((4, 4), (0, 4), (0, 4))]
)
def test_films_are_padded_to_a_square_of_the_mean_colour(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    film = np.full((*shape, 3), 200, np.uint8)
    padded = np.asarray(healthgpt.pad_to_square(Image.fromarray(film), MEAN))
    expected = np.full((max(shape), max(shape), 3), (122, 116, 104), np.uint8)
    expected[slice(*rows), slice(*columns)] = 200
    assert np.array_equal(padded, expected)


def test_pixels_are_normalised_by_hand(network: healthgpt.HealthGPT) -> None:
    film = np.arange(14 * SIDE, dtype=np.uint8).reshape(14, SIDE)
    by_hand = np.tile(np.array([122, 116, 104], np.float64)[:, None, None], (1, SIDE, SIDE))
    by_hand[:, 7:21] = film
    by_hand = (by_hand / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    assert np.allclose(network.inputs([film], ["q"])["pixel_values"][0].numpy(), by_hand, atol=1e-5)


def by_hand_logits(recipe: SimpleNamespace, network: healthgpt.HealthGPT, film: np.ndarray, text: str) -> torch.Tensor:
    """The last token's logits from the saved parts: experts by hooks that loop, the image put in by hand."""
    file = {name.removeprefix(PREFIX): value.float() for name, value in published().items()}
    language = Phi3ForCausalLM.from_pretrained(recipe.load["language"]).eval()
    for name in layers():
        experts = [file[f"{name}.lora_{part}.weight"] for part in ("route", "A", "B")]

        def add(layer: Any, given: Any, out: torch.Tensor, experts: list[torch.Tensor] = experts) -> torch.Tensor:
            return out + looped(given[0], *experts)

        language.model.get_submodule(name).register_forward_hook(add)
    clip = CLIPVisionModel.from_pretrained(recipe.load["vision"]).eval()
    pixels = network.inputs([film], [text])["pixel_values"]
    patches = clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    inner = functional.gelu(patches @ file["mm_projector.0.weight"].T + file["mm_projector.0.bias"])
    image = inner @ file["mm_projector.2.weight"].T + file["mm_projector.2.bias"]
    pieces = (f"<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n<image>\n{text}<|end|>\n"
              "<|assistant|>\n").split("<image>")  # fmt: skip
    ids = [torch.tensor([byte_tokenizer()(piece)["input_ids"]]) for piece in pieces]
    table = language.model.embed_tokens
    whole = torch.cat([table(ids[0]), image, table(ids[1])], 1)
    return language(inputs_embeds=whole).logits[0, -1, : len(byte_tokenizer())].detach()


def test_logits_equal_those_of_the_parts_joined_by_hand(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray]
) -> None:
    with torch.inference_mode():
        expected = by_hand_logits(recipe, network, two[0], "edema?")
    found = network.logits(network.inputs(two[:1], ["edema?"]))[0]
    assert torch.allclose(found[: len(expected)], expected, atol=2e-4)
    other = network.logits(network.inputs(two[1:], ["edema?"]))[0]
    assert not torch.allclose(found, other, atol=1e-2), "the film must matter"


def test_half_precision_is_that_of_the_whole_network(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray]
) -> None:
    half = healthgpt.load(SimpleNamespace(**{**vars(recipe), "dtype": "bfloat16"}), device="cpu")
    assert {value.dtype for value in half.model.parameters()} == {torch.bfloat16}
    assert half.inputs(two, ["q", "q"])["pixel_values"].dtype == torch.bfloat16
    found, exact = (one.logits(one.inputs(two, ["q", "q"])) for one in (half, network))
    assert found.dtype == torch.float32
    assert float(functional.cosine_similarity(found, exact).min()) > 0.99


def test_index_tokens_have_the_mean_row_and_so_the_mean_logit(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray]
) -> None:
    tokenizer, known = network.processor.tokenizer, len(byte_tokenizer())
    assert len(tokenizer) == known + INDEX_TOKENS + 3
    new = ["<start_index>", "<idx_0>", "<idx_4>", "<end_index>", "<pixel_newline>"]
    assert tokenizer.convert_tokens_to_ids(new) == [known, known + 1, known + 5, known + 6, known + 7]
    logits = network.logits(network.inputs(two[:1], ["q"]))[0]
    assert torch.allclose(logits[known:], logits[:known].mean().expand(INDEX_TOKENS + 3), atol=1e-5)
    own = load_file(Path(recipe.load["language"]) / "model.safetensors")["lm_head.weight"]
    assert torch.equal(network.model.lm_head.weight[:known], own[:known]), "its spare rows are given away"


def test_a_batch_of_two_lengths_equals_each_alone(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    questions = ["q", "a question of quite another length"]
    both = network.logits(network.inputs(two, questions))
    for row, (film, question) in enumerate(zip(two, questions, strict=True)):
        alone = network.logits(network.inputs([film], [question]))[0]
        assert torch.allclose(both[row], alone, atol=1e-4)
    answers = network.generate(two, questions, max_new_tokens=6)
    assert answers == [network.generate([f], [q], max_new_tokens=6)[0] for f, q in zip(two, questions, strict=True)]


def test_answers_are_greedy_from_the_logits(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    inputs = network.inputs(two[:1], ["what?"])
    picked: list[int] = []
    for _ in range(5):
        best = network.logits(inputs)[0].argmax()
        picked.append(int(best))
        ids = torch.cat([inputs["input_ids"], best.reshape(1, 1)], 1)
        inputs = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert not set(picked) & {2, WORDS.index("<|end|>")}
    text = network.processor.tokenizer.decode(picked, skip_special_tokens=True).strip()
    assert network.generate(two[:1], ["what?"], max_new_tokens=5) == [text]


def test_an_answer_ends_at_its_end_token(network: healthgpt.HealthGPT, two: list[np.ndarray]) -> None:
    tokenizer = network.processor.tokenizer
    end, stop = tokenizer.convert_tokens_to_ids(["<|end|>", "</s>"])
    assert network.model.generation_config.eos_token_id == [stop, end]
    start = network.inputs(two, ["q", "q"])["input_ids"].shape[1]
    wanted = [[*tokenizer(" Low")["input_ids"], end], [*tokenizer("High end")["input_ids"], stop]]

    def only(row: int, ids: torch.Tensor) -> list[int]:
        place = len(ids) - start
        return [wanted[row][place] if place < len(wanted[row]) else end]

    answers = network.generate(two, ["q", "q"], max_new_tokens=20, prefix_allowed_tokens_fn=only)
    assert answers == ["Low", "High end"]


def test_model_and_processor_may_be_used_as_those_of_other_networks(
    network: healthgpt.HealthGPT, two: list[np.ndarray]
) -> None:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it good?"}]}
    text = network.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert text == M3
    pictures = [[Image.fromarray(np.repeat(film[:, :, None], 3, 2))] for film in two]
    inputs = network.processor(text=[text] * 2, images=pictures, padding=True, return_tensors="pt").to("cpu")
    with torch.inference_mode():
        found = network.model(**inputs, logits_to_keep=1).logits[:, -1]
    assert torch.allclose(found, network.logits(network.inputs(two, ["Is it good?"] * 2)), atol=1e-4)
    with pytest.raises(ValueError, match=r"one user message, an image and then a text.* got \['system', 'user'\]"):
        network.processor.apply_chat_template([{"role": "system", "content": []}, message])


def judge_of(recipe: SimpleNamespace, tmp_path: Path, **changes: Any) -> judges.Judge:
    (tmp_path / "short.md").write_text("Does it show {prompt}?")
    asked = {"rubric": str(tmp_path / "short.md"), "model": recipe.model, "load": recipe.load, **changes}
    return judges.load_judge(judges.JudgeRecipe("tiny", "healthgpt", **asked), rubrics=tmp_path, device="cpu")


def test_as_a_judge_its_scores_are_those_of_the_letters(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray], tmp_path: Path
) -> None:
    verdicts = judge_of(recipe, tmp_path).judge(two, ["edema", "no edema"], [{}, {}])
    offered = "\nA. High Quality\nB. Medium Quality\nC. Low Quality\nD. Not Relevant\nAnswer with one letter."
    asked = [f"Does it show {prompt}?{offered}" for prompt in ("edema", "no edema")]
    letters = network.processor.tokenizer.convert_tokens_to_ids(list("ABCD"))
    expected = network.logits(network.inputs(two, asked))[:, letters].softmax(1)
    for row, verdict in enumerate(verdicts):
        assert list(verdict.scores.values()) == pytest.approx(expected[row].tolist(), abs=1e-4)


@pytest.mark.parametrize("packing", ["packed", "cache", "separate"])
def test_as_a_judge_its_label_scores_do_not_depend_on_the_packing(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray], tmp_path: Path, packing: str
) -> None:
    judge = judge_of(recipe, tmp_path, answers="labels", packing=packing)
    offered = "High Quality, Medium Quality, Low Quality, Not Relevant"
    inputs = network.inputs(two[:1], [f"Does it show edema?\nAnswer with one of: {offered}."])
    expected = {}
    for label in offered.split(", "):
        ids = network.processor.tokenizer(label)["input_ids"]
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
        with torch.inference_mode():
            logits = network.model(whole, pixel_values=inputs["pixel_values"]).logits[0, -len(ids) - 1 : -1]
        expected[label] = float(logits.log_softmax(1)[range(len(ids)), ids].sum())
    found = judge.judge(two[:1], ["edema"], [{}])[0].details["log_probs"]
    assert found == pytest.approx(expected, abs=1e-3)


def test_as_a_judge_it_answers_the_published_question_in_words(
    recipe: SimpleNamespace, network: healthgpt.HealthGPT, two: list[np.ndarray], tmp_path: Path
) -> None:
    judge = judge_of(recipe, tmp_path, read_out="published", max_new_tokens=4)
    verdict = judge.judge(two[:1], ["edema"], [{}])[0]
    assert verdict.quality is None, "random weights name no class"
    answer = network.generate(two[:1], ["Does it show edema?"], max_new_tokens=4)
    assert verdict.details["answer"].strip() == answer[0]
    assert judge.identity["revision"] == network.version


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(file: dict[str, torch.Tensor]) -> None:
        del file[PREFIX + name]

    return change


def with_more(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(file: dict[str, torch.Tensor]) -> None:
        file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers.1.mlp.down_proj.lora_A.weight"), r"1 missing, e\.g\. \['base_.*1\.mlp\.down_proj\.lora_A"),
        (without("mm_projector.2.bias"), r"1 missing, e\.g\. \['base_model\.model\.model\.mm_projector\.2\.bias'\]"),
        (
            with_more(PREFIX + "layers.2.mlp.down_proj.lora_A.weight", torch.zeros(1)),
            r"1 unexpected, e\.g\. \['base_model\.model\.model\.layers\.2",
        ),
        (
            with_more(PREFIX + "layers.0.mlp.down_proj.weight", torch.zeros(WIDTH, INNER)),
            r"1 unexpected, e\.g\. \['base_model\.model\.model\.layers\.0\.mlp\.down_proj\.weight'\]",
        ),
        (
            with_more(PREFIX + "layers.0.self_attn.o_proj.lora_B.weight", torch.zeros(WIDTH, 2 * RANK)),
            r"1 misshapen, e\.g\. \['base_model.*o_proj\.lora_B\.weight \(32, 16\) for \(32, 8\)'\]",
        ),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    network: healthgpt.HealthGPT, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    file = published()
    change(file)
    torch.save(file, tmp_path / "com.bin")
    with pytest.raises(ValueError, match=r"expected the 28 tensors of Adapter, got \d+ from com.bin: " + message):
        load_adapter(network.model, tmp_path / "com.bin")


def test_an_adapter_file_with_code_in_it_is_not_run(network: healthgpt.HealthGPT, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({**published(), "trap": Trap()}, tmp_path / "com.bin")
    with pytest.raises(ValueError, match=r"expected weights .* which cannot be read as such"):
        load_adapter(network.model, tmp_path / "com.bin")
    assert not (tmp_path / "sprung").exists()


def test_missing_files_are_named(recipe: SimpleNamespace, network: healthgpt.HealthGPT, tmp_path: Path) -> None:
    elsewhere = SimpleNamespace(**{**vars(recipe), "model": str(tmp_path)})
    with pytest.raises(ValueError, match=r"expected com\.bin in .* got no such file; copy it"):
        healthgpt.load(elsewhere, device="cpu")
    with pytest.raises(ValueError, match=r"expected HealthGPT's adapter at .*absent\.bin, got no such file"):
        load_adapter(network.model, tmp_path / "absent.bin")


def test_a_language_model_that_is_not_whole_is_refused(recipe: SimpleNamespace, tmp_path: Path) -> None:
    for path in Path(recipe.load["language"]).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    broken = SimpleNamespace(**{**vars(recipe), "load": {**recipe.load, "language": str(tmp_path)}})
    with pytest.raises(ValueError, match=r"lacks 1 weights of Phi3ForCausalLM, e\.g\. \['model\.layers\.0\.mlp\.down"):
        healthgpt.load(broken, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": 4}, r"`load` of judge tiny has unknown keys \['ranks'\]; the valid ones are \['language', "),
        ({"template": "phi5"}, r"template must be one of \['phi3_instruct', 'phi4_instruct'\], got 'phi5'"),
        ({"index_tokens": 0}, "index_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_parts_are_refused(recipe: SimpleNamespace, changes: Mapping[str, Any], message: str) -> None:
    wrong = SimpleNamespace(**{**vars(recipe), "load": {**recipe.load, **changes}})
    with pytest.raises(ValueError, match=message):
        healthgpt.load(wrong, device="cpu")


@pytest.mark.parametrize(("name", "rank", "template"), [("m3", 64, "phi3_instruct"), ("l14", 32, "phi4_instruct")])
def test_the_configs_that_ship_have_the_published_numbers(name: str, rank: int, template: str) -> None:
    found = recipes.read(room("filtering") / "configs" / f"healthgpt-{name}.yaml", judges.JudgeRecipe)
    parts = recipes.build(found.load, healthgpt.Parts, where=name)
    assert (parts.rank, parts.template, parts.experts, parts.index_tokens) == (rank, template, 4, 8192)
    assert parts.alpha / parts.rank * parts.experts == 8.0
    assert parts.vision_feature_layer == -2
    assert (found.judge, found.rubric, found.read_out, found.dtype) == (
        "healthgpt",
        "published",
        "published",
        "float16",
    )


def test_the_published_file_holds_what_its_size_says() -> None:
    """H-LoRA of Phi-3-mini at the published numbers has 102,891,520 weights, the projector 12,589,056."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    with torch.device("meta"):
        full = LlavaForConditionalGeneration(LlavaConfig(text_config=Phi3Config()))
        assert add_experts(full.model.language_model, rank=64, alpha=128, experts=4) == 128
    held = Adapter(full).state_dict()
    sizes = {part: sum(v.numel() for n, v in held.items() if part in n) for part in (".lora_", ".mm_projector.")}
    assert sizes == {".lora_": 102_891_520, ".mm_projector.": 12_589_056}
