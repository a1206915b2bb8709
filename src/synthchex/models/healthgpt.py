"""HealthGPT (M3 on Phi-3-mini, L14 on Phi-4) as a vision-language network of current transformers. Knows prompts, films
and weights; knows neither rubrics nor verdicts.

`load(recipe)` gives a `HealthGPT`. Its `model` is a `LlavaForConditionalGeneration` (CLIP ViT-L/14 at 336 px, patch
tokens of the last layer but one, two linear layers, the language model with H-LoRA on every linear layer) and its
`processor` is called as one of transformers is, so that code for other vision-language models can score it as it is.
Only the comprehension task is here: no images are made.

Source: DCDmllm/HealthGPT at 4d404a5 (`com_infer.py`, `conversation.py`, `utils.py`), whose conversation templates,
image padding, vocabulary and tokenisation around `<image>` are followed; written anew. Its weights could not be fetched
here: checked on small random networks of the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import BatchFeature, GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from synthchex.data import recipes
from synthchex.data.images import to_rgb
from synthchex.models.encoders import loading, pick_device
from synthchex.models.healthgpt_lora import add_experts, load_adapter
from synthchex.models.networks import digest

IMAGE = "<image>"
# The system prompt of L14 is odd, and as published.
TEMPLATES = {
    "phi3_instruct": "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n{message}<|end|>\n<|assistant|>\n",
    "phi4_instruct": "<|im_start|>system<|im_sep|>\nYou are a medieval knight and must provide explanations to modern "
    "people.<|im_end|>\n<|im_start|>user<|im_sep|>\n{message}<|im_end|>\n<|im_start|>assistant<|im_sep|>\n",
}


@dataclass(frozen=True)
class Parts:
    """What a HealthGPT is put together from; the `load` part of a judge's YAML.

    `language` and `vision` are Hub ids or folders, `adapter` a file in the recipe's model. `rank`, `alpha` and
    `experts` are those of H-LoRA, `index_tokens` the number of image index tokens in the vocabulary. None of these
    numbers is published in a config.json.
    """

    language: str
    vision: str
    adapter: str
    template: str
    rank: int
    alpha: float
    experts: int
    index_tokens: int
    vision_feature_layer: int = -2
    language_revision: str = "main"
    vision_revision: str = "main"

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise ValueError(f"template must be one of {sorted(TEMPLATES)}, got {self.template!r}")
        if self.index_tokens < 1:
            raise ValueError(f"index_tokens must be at least 1, got {self.index_tokens}")


class Recipe(Protocol):
    """What `load` needs of a judge's recipe."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def load(self) -> Mapping[str, Any]: ...


class Processor:
    """Prompts with one `<image>` each, and their films, to tensors; called as a processor of transformers is.

    A prompt's pieces before and after `<image>` are tokenized one by one, as HealthGPT does, which a tokenizer that
    knows `<image>` would not do. Rows are padded on the left.
    """

    def __init__(self, tokenizer: Any, films: Any, *, template: str, image_tokens: int, image_token_id: int) -> None:
        self.tokenizer, self.image_processor, self.template = tokenizer, films, TEMPLATES[template]
        self.image_tokens, self.image_token_id = image_tokens, image_token_id

    def __call__(
        self,
        text: Sequence[str],
        images: Sequence[Any],
        *,
        padding: bool = True,
        return_tensors: str = "pt",
        add_special_tokens: bool = True,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` (N, L), `pixel_values` (N, 3, side, side).

        Args:
            text: prompts, each with one `<image>`.
            images: a PIL image, or a list of one, per prompt.
            padding: must be true where the prompts differ in length.
            return_tensors, add_special_tokens: as in transformers.

        Raises:
            ValueError: not one `<image>` in each prompt, or not one image for each.
        """
        pictures = [image[0] if isinstance(image, list) and len(image) == 1 else image for image in images]
        if len(pictures) != len(text) or any(isinstance(picture, list) for picture in pictures):
            counts = [len(image) if isinstance(image, list) else 1 for image in images]
            raise ValueError(f"expected one image for each of {len(text)} prompts, got {counts}")
        rows = {"input_ids": [self.token_ids(prompt, add_special_tokens=add_special_tokens) for prompt in text]}
        tokens = self.tokenizer.pad(rows, padding=padding, padding_side="left", return_tensors=return_tensors)
        squares = [pad_to_square(picture, self.image_processor.image_mean) for picture in pictures]
        pixels = self.image_processor(images=squares, return_tensors=return_tensors)["pixel_values"]
        return BatchFeature({**{key: tokens[key] for key in ("input_ids", "attention_mask")}, "pixel_values": pixels})

    def token_ids(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt, with `image_tokens` placeholders where `<image>` stood.

        Raises:
            ValueError: not exactly one `<image>`, as when a caption has one of its own.
        """
        pieces = prompt.split(IMAGE)
        if len(pieces) != 2:
            raise ValueError(f"expected one {IMAGE} in a prompt, got {len(pieces) - 1}; take it out of the question")
        before, after = (
            list(self.tokenizer(piece, add_special_tokens=add_special_tokens)["input_ids"]) for piece in pieces
        )
        # Each piece is given its own token of the beginning; only the first keeps it.
        if before and before[0] == self.tokenizer.bos_token_id:
            after = after[1:]
        return [*before, *[self.image_token_id] * self.image_tokens, *after]

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, tokenize: bool = False
    ) -> str:
        """The prompt text of one user message with an image, in the form transformers has for it.

        Raises:
            ValueError: anything but one user message with one image before its text, or `tokenize`.
        """
        roles = [message["role"] for message in conversation]
        content = conversation[0]["content"] if roles == ["user"] else []
        kinds = [part["type"] for part in content]
        if kinds != ["image", "text"] or tokenize or not add_generation_prompt:
            raise ValueError(
                "HealthGPT is asked with one user message, an image and then a text, as text and open for an answer; "
                f"got {roles} with {kinds}, tokenize={tokenize}, add_generation_prompt={add_generation_prompt}"
            )
        return self.prompt_text(str(content[1]["text"]))

    def prompt_text(self, question: str) -> str:
        """A question about a film in the conversation template, open for the answer."""
        return self.template.replace("{message}", f"{IMAGE}\n{question}")


class HealthGPT:
    """HealthGPT with its processor; `model` and `processor` may be used as those of any vision-language model.

    `version` is the SHA-256 of the adapter file.
    """

    def __init__(self, name: str, model: Any, processor: Processor, version: str) -> None:
        self.name, self.model, self.processor, self.version = name, model, processor, version

    def prompt_text(self, question: str) -> str:
        """A question about a film in the conversation template, open for the answer."""
        return self.processor.prompt_text(question)

    def inputs(self, films: Sequence[np.ndarray], questions: Sequence[str]) -> BatchFeature:
        """Input of the model on its device: `input_ids` and `attention_mask` (N, L), padded on the left, and
        `pixel_values` (N, 3, side, side).

        Args:
            films: uint8, (H, W) or (H, W, 3).
            questions: one per film.

        Raises:
            ValueError: films and questions differ in number, a question has `<image>` in it, or a prompt is longer than
                the language model's context.
        """
        from PIL import Image

        prompts = [self.prompt_text(question) for question in questions]
        inputs = self.processor(text=prompts, images=[Image.fromarray(to_rgb(film)) for film in films])
        length, most = inputs["input_ids"].shape[1], self.model.config.text_config.max_position_embeddings
        if length > most:
            raise ValueError(f"expected prompts of at most {most} tokens, got {length}; shorten the caption or rubric")
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return inputs.to(self.model.device)

    def logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits of the token after each prompt, float32, (N, vocabulary); `log_softmax` makes log-probabilities."""
        # Counted from the first token that is none of padding, as `generate` does.
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            output = self.model(**inputs, position_ids=positions, logits_to_keep=1, use_cache=False)
        return output.logits[:, -1].float()

    def generate(
        self, films: Sequence[np.ndarray], questions: Sequence[str], *, max_new_tokens: int = 1024, **options: Any
    ) -> list[str]:
        """Answers, greedy unless `options`, which go to `generate` of transformers, say otherwise.

        HealthGPT's own script cuts eight characters off each answer, meant for the end token; here that token is cut
        off by its id, and white space around the answer is.
        """
        inputs = self.inputs(films, questions)
        with torch.inference_mode():
            rows = self.model.generate(**inputs, **{"do_sample": False, "max_new_tokens": max_new_tokens, **options})
        answers = rows[:, inputs["input_ids"].shape[1] :].tolist()
        return [
            self.processor.tokenizer.decode(self._until_end(row), skip_special_tokens=True).strip() for row in answers
        ]

    def _until_end(self, row: list[int]) -> list[int]:
        stops = set(self.model.generation_config.eos_token_id)
        return row[: next((place for place, token in enumerate(row) if token in stops), len(row))]


def pad_to_square(picture: Any, mean: Sequence[float]) -> Any:
    """A PIL image in RGB, in the middle of a square of the mean colour (three numbers in [0, 1])."""
    from PIL import ImageOps

    width, height = picture.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    border = (left, top, side - width - left, side - height - top)
    colour = tuple(int(value * 255) for value in mean)
    return ImageOps.expand(picture.convert("RGB"), border=border, fill=colour)


def load(recipe: Recipe, *, device: str | None = None) -> HealthGPT:
    """HealthGPT, ready on `device`.

    Args:
        recipe: `model` is the Hub id or folder that holds the adapter file, `load` has the fields of `Parts`.
        device: "cpu", "cuda", …; None: this process's GPU, else the CPU.

    Raises:
        ValueError: unknown or missing fields, files or weights; the message names them.
        OSError: the Hub cannot be reached.
    """
    parts = recipes.build(dict(recipe.load), Parts, where=f"`load` of judge {recipe.name}")
    adapter, dtype = _adapter_file(recipe, parts), getattr(torch, recipe.dtype)
    tokenizer, language = _language(parts, dtype)
    model = _joined(parts, tokenizer, language, _vision(parts, dtype))
    add_experts(model.model.language_model, rank=parts.rank, alpha=parts.alpha, experts=parts.experts)
    load_adapter(model, adapter)
    processor = Processor(
        tokenizer,
        _film_processor(parts),
        template=parts.template,
        image_tokens=model.config.image_seq_length,
        image_token_id=model.config.image_token_id,
    )
    return HealthGPT(recipe.name, model.eval().to(pick_device(device)), processor, digest(adapter))


def _adapter_file(recipe: Recipe, parts: Parts) -> Path:
    """The adapter on this machine."""
    if Path(recipe.model).is_dir():
        path = Path(recipe.model) / parts.adapter
        if not path.is_file():
            raise ValueError(
                f"expected {parts.adapter} in {recipe.model}, got no such file; copy it from the repository"
            )
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(recipe.model, parts.adapter, revision=recipe.revision))


def _language(parts: Parts, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and language model, with HealthGPT's image index tokens in the vocabulary of both.

    The files for comprehension hold no rows for these tokens: they have the mean row of the others, as in HealthGPT's
    own script, and so take their share of the probability.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with loading(parts.language):
        tokenizer = AutoTokenizer.from_pretrained(parts.language, revision=parts.language_revision)
        model = _whole(AutoModelForCausalLM, parts.language, parts.language_revision, dtype)
    known = len(tokenizer)
    added = ["<start_index>", *(f"<idx_{number}>" for number in range(parts.index_tokens)), "<end_index>"]
    tokenizer.add_tokens([*added, "<pixel_newline>"], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight.data[known:] = table.weight.data[:known].mean(0)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def _vision(parts: Parts, dtype: torch.dtype) -> Any:
    """CLIP's image tower."""
    from transformers import CLIPVisionModel

    with loading(parts.vision):
        return _whole(CLIPVisionModel, parts.vision, parts.vision_revision, dtype)


def _film_processor(parts: Parts) -> Any:
    """CLIP's image processor, by Pillow on every machine."""
    from synthchex.models.auto import processor_of
    from synthchex.models.known import Named

    with loading(parts.vision):
        return processor_of(Named(parts.vision, "image-text pairs", "MIT", revision=parts.vision_revision))


def _whole(kind: Any, name: str, revision: str, dtype: torch.dtype) -> Any:
    """A pretrained model, none of whose weights is random."""
    model, info = kind.from_pretrained(name, revision=revision, dtype=dtype, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[:3]}, which would be random"
            "; fetch it again"
        )
    return model


def _joined(parts: Parts, tokenizer: Any, language: Any, vision: Any) -> Any:
    """Both towers in one Llava model; the projector between them is still empty.

    The placeholder of the image has an embedding, one past the vocabulary and never used, but no logit.
    """
    sight = vision.config
    config = LlavaConfig(
        vision_config=sight,
        text_config=language.config,
        image_token_index=len(tokenizer),
        image_seq_length=(sight.image_size // sight.patch_size) ** 2,
        vision_feature_layer=parts.vision_feature_layer,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    rows = language.get_input_embeddings().weight.data
    placed = torch.nn.Embedding.from_pretrained(torch.cat([rows, rows.new_zeros(1, rows.shape[1])]))
    language.model.set_input_embeddings(placed)
    model.model.language_model, model.lm_head, model.model.vision_tower = language.model, language.lm_head, vision
    model.model.multi_modal_projector.to_empty(device="cpu").to(language.dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=_stops(parts, tokenizer, language), pad_token_id=tokenizer.pad_token_id
    )
    return model


def _stops(parts: Parts, tokenizer: Any, language: Any) -> list[int]:
    """Tokens that end an answer: the language model's own, and the end of a turn."""
    own = language.generation_config.eos_token_id
    turn = tokenizer.convert_tokens_to_ids("<|end|>" if parts.template == "phi3_instruct" else "<|im_end|>")
    known = [turn] if turn is not None and turn != tokenizer.unk_token_id else []
    return sorted({*(own if isinstance(own, list) else [own] if own is not None else []), *known})
