"""A model that writes reports: its loss on true ones, and the ones that it writes. Knows no optimizer and no files.

Two kinds of transformers' image-text-to-text models: those with a chat template are asked a question about a film, with
the judges' way of loading, padding (left) and placing them; a vision encoder-decoder reads the film alone.
The loss is of the tokens of the report and its end: neither question, film nor padding is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synthchex.data import images
from synthchex.judges import chat
from synthchex.models import auto, encoders
from synthchex.models.samplers import model_path
from synthchex.utility.reports.recipe import ReportRecipe

if TYPE_CHECKING:
    import torch

IGNORED = -100  # as torch's and transformers' losses have it


class Written(NamedTuple):
    """A report, and whether it was cut at the longest that may be written."""

    text: str
    truncated: bool


class Answers(NamedTuple):
    """True reports as token ids with their end, and how many were cut to the length that training allows."""

    ids: list[list[int]]
    cut: int


class Writer:
    """A model with its tokenizer.

    `kind` is "chat" or "captioner"; `revision` the commit or hash that was loaded; `cut_indications` counts those that
    lost their end while reports were written.
    """

    kind = ""
    cut_indications = 0

    def __init__(self, recipe: ReportRecipe, model: Any, tokenizer: Any, revision: str) -> None:
        self.recipe, self.model, self.tokenizer, self.revision = recipe, model, tokenizer, revision
        found = model.generation_config.eos_token_id
        ends = [tokenizer.eos_token_id] if found is None else [found] if isinstance(found, int) else list(found)
        if not ends or ends[0] is None:
            raise ValueError(f"expected a model with an end token, got none in {recipe.model}; set its eos_token_id")
        self.ends = [int(end) for end in ends]
        self.end = tokenizer.eos_token_id if tokenizer.eos_token_id in self.ends else self.ends[0]
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end

    def answers(self, reports: Sequence[str]) -> Answers:
        """Token ids of true reports, each with its end; those longer than `max_length` allows are cut and counted."""
        texts = [self.recipe.answer_prefix + text for text in reports]
        found = [list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        room = self.room()
        return Answers([[*ids[:room], self.end] for ids in found], sum(len(ids) > room for ids in found))

    def room(self) -> int:
        """Tokens that a report may have in training."""
        raise NotImplementedError

    def losses(self, films: Sequence[np.ndarray], indications: Sequence[str], ids: Sequence[Sequence[int]]) -> Any:
        """Sum of the cross-entropy over all tokens of some reports, in nats, a tensor in float32."""
        raise NotImplementedError

    def write(self, films: Sequence[np.ndarray], indications: Sequence[str]) -> list[Written]:
        """A report for each film, decoded greedily."""
        raise NotImplementedError

    def _read(self, found: Any) -> list[Written]:
        """Generated ids, without the question, as text."""
        rows = found.tolist()
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = [any(end in row for end in self.ends) for row in rows]
        return [Written(" ".join(text.split()), not end) for text, end in zip(texts, ended, strict=True)]

    def _greedy(self, inputs: dict[str, Any]) -> Any:
        import torch

        with torch.inference_mode():
            return self.model.generate(
                **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, pad_token_id=self.pad,
                eos_token_id=self.ends, max_new_tokens=self.recipe.max_new_tokens,
            )  # fmt: skip


class ChatWriter(Writer):
    """A model with a chat template, asked the recipe's question about a film."""

    kind = "chat"

    def __init__(self, recipe: ReportRecipe, network: chat.ChatModel) -> None:
        super().__init__(recipe, network.model, network.tokenizer, network.revision)
        self.network = network

    def room(self) -> int:
        """Half of what may be read at most, so that the film and the question stay whole."""
        return max(1, min(self.recipe.max_length, self.network.context) // 2)

    def losses(self, films: Sequence[np.ndarray], indications: Sequence[str], ids: Sequence[Sequence[int]]) -> Any:
        """See `Writer`. The question is tokenized as for writing, and the report's tokens are put behind it."""
        longest = max(map(len, ids))
        inputs, _ = self.network.prepare(films, indications, self.recipe.question, room=longest)
        logits = self.model(**with_answers(self.model, inputs, ids, self.pad), logits_to_keep=longest + 1).logits
        return cross_entropy(logits[:, :-1], ids)

    def write(self, films: Sequence[np.ndarray], indications: Sequence[str]) -> list[Written]:
        """See `Writer`; padded on the left, whole batches at once."""
        inputs, cut = self.network.prepare(
            films, indications, self.recipe.question, room=self.recipe.max_new_tokens + 1
        )
        self.cut_indications += sum(lost > 0 for lost in cut)
        length = inputs["input_ids"].shape[1]
        return self._read(self._greedy(dict(inputs))[:, length:])


class CaptionWriter(Writer):
    """A vision encoder-decoder, which reads a film and no question."""

    kind = "captioner"

    def __init__(self, recipe: ReportRecipe, model: Any, processor: Any, tokenizer: Any, revision: str) -> None:
        super().__init__(recipe, model, tokenizer, revision)
        self.processor = processor

    def room(self) -> int:
        """What the decoder may read, less the end."""
        longest = getattr(self.model.config.decoder, "max_position_embeddings", self.recipe.max_length)
        return max(1, min(self.recipe.max_length, longest) - 1)

    def losses(self, films: Sequence[np.ndarray], indications: Sequence[str], ids: Sequence[Sequence[int]]) -> Any:
        """See `Writer`; the model shifts the labels by itself."""
        labels = padded(ids, IGNORED, self.model.device)
        seen = padded([[1] * len(one) for one in ids], 0, self.model.device)
        found = self.model(pixel_values=self._pixels(films), labels=labels, decoder_attention_mask=seen)
        return cross_entropy(found.logits, ids)

    def write(self, films: Sequence[np.ndarray], indications: Sequence[str]) -> list[Written]:
        """See `Writer`; the first token is the decoder's start, not text."""
        return self._read(self._greedy({"pixel_values": self._pixels(films)})[:, 1:])

    def _pixels(self, films: Sequence[np.ndarray]) -> Any:
        from PIL import Image

        pictures = [Image.fromarray(images.to_rgb(film)) for film in films]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


def with_answers(model: Any, inputs: Any, ids: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """Prepared questions with a report behind each, padded on the right: what is padded is masked, as on the left."""
    import torch

    question = inputs["input_ids"]
    more = padded(ids, pad, question.device)
    mask = padded([[1] * len(one) for one in ids], 0, question.device)
    found = dict(inputs) | {"input_ids": torch.cat([question, more], 1)}
    found["attention_mask"] = torch.cat([inputs["attention_mask"], mask], 1)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            found[name] = torch.cat([inputs[name], torch.zeros_like(more, dtype=inputs[name].dtype)], 1)
    if not hasattr(getattr(model, "model", None), "rope_deltas"):  # with M-RoPE the model makes its own
        found["position_ids"] = (found["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return found


def cross_entropy(logits: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sum over the tokens of reports, float32.

    Args:
        logits: of the places that predict each token, (N, L, V).
        ids: tokens of N reports, at most L each.
    """
    from torch.nn import functional

    wanted = padded(ids, IGNORED, logits.device)
    return functional.cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def padded(rows: Sequence[Sequence[int]], fill: int, device: Any) -> torch.Tensor:
    """Rows of unequal length as int64 (N, L), filled up on the right."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=torch.long, device=device)


def load(recipe: ReportRecipe, device: str | None) -> Writer:
    """The model that a recipe names, all weights frozen as loaded, ready on `device`.

    Raises:
        ValueError: no model named, no such folder, a checkpoint without all weights, or a model that can be asked
            neither by a chat template nor with a film alone.
        OSError: the Hub cannot be reached.
    """
    import transformers

    path = model_path(recipe.model)
    if not path:
        raise ValueError(f"recipe {recipe.name} names no model; set `model:` or --model to a Hub id or folder")
    if path.startswith((".", "/")) and not Path(path).is_dir():
        raise ValueError(f"recipe {recipe.name}: expected a folder with a model, got {path}, which is not there")
    with encoders.loading(path):
        kind = transformers.AutoConfig.from_pretrained(path, revision=recipe.revision).model_type
        parts = _processors(path, recipe.revision, kind)
        model = _model(recipe, path)
    if "device_map" not in recipe.load:
        model = model.to(encoders.pick_device(device))
    revision = auto.version(path, model)
    if kind == "vision-encoder-decoder":
        return CaptionWriter(recipe, model, parts[0], parts[1], revision)
    return ChatWriter(recipe, chat.ChatModel(model, parts[0], revision=revision, prefix=recipe.answer_prefix))


def _processors(path: str, revision: str, kind: str) -> tuple[Any, ...]:
    """Image processor and tokenizer of an encoder-decoder, or the processor of a model with a chat template."""
    import transformers

    if kind == "vision-encoder-decoder":
        backend: dict[str, Any] = (
            {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
        )
        return (
            transformers.AutoImageProcessor.from_pretrained(path, revision=revision, **backend),
            transformers.AutoTokenizer.from_pretrained(path, revision=revision),
        )
    processor = chat.load_processor(path, revision)
    if not getattr(processor, "chat_template", None):
        raise ValueError(
            f"expected a model with a chat template or a vision-encoder-decoder, got {path} ({kind}) without one; "
            "use its instruction-tuned version"
        )
    return (processor,)


def _model(recipe: ReportRecipe, path: str) -> Any:
    """The network; frozen weights are bfloat16 where training is mixed, and float32 where all of them are trained."""
    import torch
    from transformers import AutoModelForImageTextToText

    dtype = torch.bfloat16 if recipe.mixed_precision == "bf16" and not recipe.full else torch.float32
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        path, revision=recipe.revision, dtype=dtype, output_loading_info=True, **recipe.load
    )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{recipe.model} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[:3]}, which would "
            "be random"
        )
    return model.eval()
