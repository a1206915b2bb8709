"""Any image-text-to-text model of transformers with its processor: films and questions to tensors, and back to words.

Knows chat templates, padding and context lengths; knows no rubrics. Image processors are those that need PIL only, the
same on every machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.judges.recipe import JudgeRecipe
from synthchex.models import encoders
from synthchex.models.samplers import model_path

logger = logging.getLogger(__name__)
# Tokenizers without a length say 1e30.
NO_LIMIT = 10**9


class Prepared(NamedTuple):
    """Questions as tensors on the model's device, and how many tokens each caption lost, 0 for most."""

    inputs: Any
    cut: list[int]


class ChatModel:
    """A model, its processor and tokenizer, its context length in tokens, and the revision that was loaded."""

    def __init__(self, model: Any, processor: Any, *, revision: str, prefix: str = "") -> None:
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.revision, self.prefix = revision, prefix
        self.tokenizer.padding_side = "left"
        text = model.config.get_text_config()
        self.context = min(getattr(text, "max_position_embeddings", NO_LIMIT), self.tokenizer.model_max_length)

    def chat(self, question: str) -> str:
        """The chat template around a film and a question, with an open answer."""
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return str(self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))

    def inputs(self, films: Sequence[np.ndarray], questions: Sequence[str]) -> Any:
        """Tensors of one batch, padded on the left, on the model's device."""
        from PIL import Image

        from synthchex.data.images import to_rgb

        texts = [self.chat(question) for question in questions]
        pictures = [[Image.fromarray(to_rgb(film))] for film in films]
        # A template that writes the first token itself must not get it twice.
        begins = bool(self.tokenizer.bos_token) and texts[0].startswith(self.tokenizer.bos_token)
        options = {"add_special_tokens": False} if begins else {}
        inputs = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt", **options)
        assert bool(inputs["attention_mask"][:, -1].all()), "questions must be padded on the left"
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def prepare(
        self, films: Sequence[np.ndarray], prompts: Sequence[str], ask: Callable[[str], str], *, room: int
    ) -> Prepared:
        """Questions with `room` tokens left for the answer; captions that are too long lose their end.

        Raises:
            ValueError: the question is too long without any caption.
        """
        captions, cut = list(prompts), [0] * len(prompts)
        for _ in range(4):
            inputs = self.inputs(films, [ask(caption) for caption in captions])
            over = (inputs["attention_mask"].sum(1) - (self.context - room)).tolist()
            if max(over) <= 0:
                break
            for row, extra in enumerate(over):
                if extra > 0:
                    captions[row], lost = self._shortened(captions[row], extra, room)
                    cut[row] += lost
        else:
            raise ValueError(f"expected questions of at most {self.context - room} tokens, got {max(over)} more")
        if any(cut):
            logger.warning(
                "%d of %d captions were cut, by up to %d tokens: the model reads %d tokens",
                sum(map(bool, cut)), len(cut), max(cut), self.context,
            )  # fmt: skip
        return Prepared(inputs, cut)

    def _shortened(self, caption: str, extra: int, room: int) -> tuple[str, int]:
        ids = self.tokenizer(caption, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(
                f"the rubric and the film alone are {extra} tokens longer than the {self.context - room} that the "
                "model reads beside its answer; shorten the rubric"
            )
        kept = ids[: max(len(ids) - extra, 0)]
        return self.tokenizer.decode(kept, skip_special_tokens=True), len(ids) - len(kept)

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer, with the recipe's prefix, where it follows the chat template.

        Raises:
            ValueError: the answer changes the tokens before it, or has an unknown token.
        """
        before = self.chat("?")[-64:]
        texts = before, before + self.prefix + answer
        one, both = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        if both[: len(one)] != one:
            raise ValueError(
                f"expected an answer {answer!r} that leaves the tokens before it alone, got {both[-4:]} for "
                f"{one[-2:]} after {before[-12:]!r}; set `answer_prefix` in the recipe, e.g. a space"
            )
        ids = [int(token) for token in both[len(one) :]]
        if not ids or self.tokenizer.unk_token_id in ids:
            raise ValueError(f"expected a tokenizer that knows {answer!r}, got the tokens {ids}")
        return ids

    def generate(self, inputs: Any, *, max_new_tokens: int, allowed: Sequence[Sequence[int]] = ()) -> list[str]:
        """Greedy answers as words; only one of `allowed` (token ids) where any are given."""
        import torch

        length = inputs["input_ids"].shape[1]
        ends = self.model.generation_config.eos_token_id
        ends = [self.tokenizer.eos_token_id] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
        if allowed:
            options = {"max_new_tokens": max(map(len, allowed)) + 1}
            options["prefix_allowed_tokens_fn"] = only(allowed, length, ends)
        pad = self.tokenizer.pad_token_id
        with torch.inference_mode():
            found = self.model.generate(
                **inputs, do_sample=False, temperature=None, top_p=None, top_k=None,
                pad_token_id=ends[0] if pad is None else pad, **options,
            )  # fmt: skip
        return list(self.tokenizer.batch_decode(found[:, length:], skip_special_tokens=True))


def only(answers: Sequence[Sequence[int]], length: int, ends: list[int]) -> Callable[[int, Any], list[int]]:
    """`prefix_allowed_tokens_fn` of a trie: after a prompt of `length` tokens, one of the answers and then an end."""
    following: dict[tuple[int, ...], list[int]] = {}
    for answer in answers:
        for place, token in enumerate(answer):
            choices = following.setdefault(tuple(answer[:place]), [])
            choices += [] if token in choices else [token]
        following.setdefault(tuple(answer), []).extend(ends)
    return lambda row, ids: following.get(tuple(ids[length:].tolist()), ends)


def load_chat(recipe: JudgeRecipe, device: str | None) -> ChatModel:
    """The model that a recipe names, ready on `device`.

    Raises:
        ValueError: no such folder, or a checkpoint without all weights.
        OSError: the Hub cannot be reached.
    """
    from synthchex.models import auto

    path = _known_path(recipe)
    with encoders.loading(path):
        processor = load_processor(path, recipe.revision)
        model = _load_model(recipe, path)
    revision = auto.version(path, model)
    if "device_map" not in recipe.load:
        model = model.to(encoders.pick_device(device))
    return ChatModel(model, processor, revision=revision, prefix=recipe.answer_prefix)


def load_processor(path: str, revision: str) -> Any:
    """The processor of a model, with an image processor that needs PIL only, the same on every machine.

    Qwen's are loaded without their video side, which needs torchvision. So does that of some other models: they are
    loaded as they are, with torchvision for films too.
    """
    import transformers

    kind = transformers.AutoConfig.from_pretrained(path, revision=revision).model_type
    five = int(transformers.__version__.split(".")[0]) >= 5
    pil: dict[str, Any] = {"backend": "pil"} if five else {"use_fast": False}
    if kind in IMAGE_ONLY:
        films = transformers.AutoImageProcessor.from_pretrained(path, revision=revision, **pil)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, revision=revision)
        return image_only(getattr(transformers, IMAGE_ONLY[kind]), films, tokenizer)
    try:
        return transformers.AutoProcessor.from_pretrained(path, revision=revision, **pil)
    except ImportError as error:
        if "ideo" not in str(error):
            raise
        logger.warning("the processor of %s has a video side, so its films are resized by torchvision", path)
    return transformers.AutoProcessor.from_pretrained(path, revision=revision)


IMAGE_ONLY = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
}


def image_only(base: type[Any], image_processor: Any, tokenizer: Any) -> Any:
    """A processor of a Qwen class without its video processor.

    The parts of a processor are read from its signature, so this one has no such argument.
    """
    from transformers.processing_utils import ProcessorMixin

    def begin(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        for name in ("image", "video"):
            token = getattr(tokenizer, f"{name}_token", None) or f"<|{name}_pad|>"
            setattr(self, f"{name}_token", token)
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        for name in ("vision_start", "vision_end"):
            setattr(self, f"{name}_token", f"<|{name}|>")
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    made = type(base.__name__, (base,), {"__init__": begin})
    return made(image_processor, tokenizer, chat_template=tokenizer.chat_template)


def _known_path(recipe: JudgeRecipe) -> str:
    path = model_path(recipe.model)
    if not path:
        raise ValueError(f"judge recipe {recipe.name} names no model; set `model:` to a Hub id or folder")
    if path.startswith((".", "/")) and not Path(path).is_dir():
        raise ValueError(f"judge recipe {recipe.name}: expected a folder with a model, got {path}, which is not there")
    return path


def _load_model(recipe: JudgeRecipe, path: str) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        path, revision=recipe.revision, dtype=getattr(torch, recipe.dtype), output_loading_info=True, **recipe.load
    )
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{recipe.model} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[:3]}, which would "
            "be random"
        )
    return model.eval()
