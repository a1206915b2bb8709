"""Prompts that stand several times in a batch, read by the text encoder once; and prompts that are too long for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

UNLIMITED = 10**6  # tokenizers without a limit say a number far above


def share_repeats(pipeline: Any) -> None:
    """Let every text encoder of a pipeline compute each distinct row of its input once per call.

    With k films per prompt, and with one negative prompt for all, most rows of a batch are repeats. The result depends
    on the batch alone, never on what was computed before, so it is the same on any number of processes.
    """
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and part is not None:
            part.forward = _shared(part.forward)


def _shared(forward: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    @wraps(forward)
    def shared(input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        asked = options if attention_mask is None else {**options, "attention_mask": attention_mask}
        others = [value for value in options.values() if isinstance(value, torch.Tensor)]
        if input_ids is None or input_ids.ndim != 2 or others or _width(attention_mask) not in (None, input_ids.shape):
            return forward(input_ids, **asked)
        seen = input_ids if attention_mask is None else torch.cat([input_ids, attention_mask.to(input_ids)], 1)
        first: dict[tuple[int, ...], int] = {}
        places = [first.setdefault(tuple(row), len(first)) for row in seen.tolist()]
        if len(first) == len(places):
            return forward(input_ids, **asked)
        once = torch.tensor([places.index(place) for place in range(len(first))], device=input_ids.device)
        if attention_mask is not None:
            asked["attention_mask"] = attention_mask[once]
        return _spread(forward(input_ids[once], **asked), torch.tensor(places, device=input_ids.device), len(first))

    return shared


def _width(mask: Any) -> Any:
    return None if mask is None else mask.shape


def _spread(found: Any, places: Any, count: int) -> Any:
    """Rows of an encoder's output, at any depth, given to each place that asked for them."""
    import torch

    if isinstance(found, torch.Tensor):
        return found[places.to(found.device)] if found.ndim and len(found) == count else found
    if isinstance(found, dict):  # ModelOutput is one, and has no constructor that takes any set of keys
        for key in list(found):
            found[key] = _spread(found[key], places, count)
        return found
    if isinstance(found, tuple | list):
        return type(found)(_spread(one, places, count) for one in found)
    return found


def count_truncated(pipeline: Any, call: dict[str, Any], prompts: Sequence[str]) -> tuple[int, int]:
    """Prompts that every text encoder of a pipeline cuts, and how many tokens the one that reads most reads.

    Args:
        pipeline: a loaded pipeline.
        call: what it is called with; `max_sequence_length` and `system_prompt` count.
        prompts: each distinct one once.
    """
    readers = sorted(_readers(pipeline, call), key=lambda reader: reader[1])
    if not readers or readers[-1][1] >= UNLIMITED or not prompts:
        return 0, 0
    tokenizer, limit, before = readers[-1]
    count = 0
    for first in range(0, len(prompts), 1000):
        texts = [before + prompt for prompt in prompts[first : first + 1000]]
        count += sum(len(ids) > limit for ids in tokenizer(texts, verbose=False)["input_ids"])
    return count, limit


def _readers(pipeline: Any, call: dict[str, Any]) -> Iterator[tuple[Any, int, str]]:
    """Tokenizers with the tokens they are let read and the text that the pipeline puts before a prompt."""
    signature = inspect.signature(type(pipeline).__call__).parameters
    default = signature["max_sequence_length"].default if "max_sequence_length" in signature else None
    longest = call.get("max_sequence_length", default)
    system = call.get("system_prompt") or getattr(pipeline, "system_prompt", "")
    for name, tokenizer in pipeline.components.items():
        if name.startswith("tokenizer") and tokenizer is not None:
            limit = min(int(tokenizer.model_max_length), UNLIMITED)
            # `max_sequence_length` is for T5, Gemma and the like: CLIP's window is its own.
            if longest is not None and "CLIP" not in type(tokenizer).__name__:
                limit = int(longest)
            yield tokenizer, limit, f"{system} <Prompt Start> " if system else ""
