"""Log-probabilities of fixed answers after a question, by three ways that share more or less of the question.

"separate" runs question and answer once for each answer. "cache" runs the question once and the answers behind its keys
and values. "packed" runs question and all answers in one forward, where an answer sees the question and itself but no
other answer. All three are the same numbers up to rounding; which of them a model allows is tried when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Inputs = Mapping[str, Any]
# Measured: bfloat16 moves a log-probability by 0.03 against float32, and by 0.02 with the batch size.
TOLERANCE = {"float32": 2e-3, "float16": 0.1, "bfloat16": 0.3}


def answer_log_probs(model: Any, inputs: Inputs, answers: Sequence[Sequence[int]], way: str) -> np.ndarray:
    """Log-probability of each answer, summed over its tokens.

    Args:
        model: a model for image-text-to-text.
        inputs: prepared questions, padded on the left: `input_ids` and `attention_mask` (N, T), pixels.
        answers: token ids of the K answers.
        way: "packed", "cache" or "separate".

    Returns:
        Nats, float64 (N, K), computed in float32.
    """
    import torch

    with torch.inference_mode():
        if all(len(answer) == 1 for answer in answers):
            logits = model(**_placed(model, inputs), logits_to_keep=1).logits[:, -1]
            return _numpy(_log_softmax(logits)[:, [answer[0] for answer in answers]])
        return _numpy(WAYS[way](model, inputs, answers))


def separate(model: Any, inputs: Inputs, answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """One forward of question and answer for each answer."""
    import torch

    columns = []
    for answer in answers:
        more = _placed(model, _extended(inputs, answer[:-1]))
        logits = model(**more, logits_to_keep=len(answer)).logits
        columns.append(_taken(_log_softmax(logits), answer).sum(1))
    return torch.stack(columns, 1)


def cached(model: Any, inputs: Inputs, answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """One forward of the question, then one of all answers, each behind its own copy of the keys and values."""
    import torch

    rows, count, longest = len(inputs["input_ids"]), len(answers), max(map(len, answers)) - 1
    device = inputs["input_ids"].device
    begun = model(**_placed(model, inputs), use_cache=True, logits_to_keep=1)
    first = _log_softmax(begun.logits[:, -1])[:, [answer[0] for answer in answers]]
    begun.past_key_values.batch_repeat_interleave(count)
    # Shorter answers are filled up on the right, where nothing that counts can see it.
    filled = [[*answer[:-1], *[answer[0]] * (longest + 1 - len(answer))] for answer in answers]
    ids = torch.tensor(filled, device=device).repeat(rows, 1)
    mask = torch.cat([inputs["attention_mask"].repeat_interleave(count, 0), torch.ones_like(ids)], 1)
    positions = mask.cumsum(1)[:, -longest:] - 1
    later = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=_shifted(model, positions),
        past_key_values=begun.past_key_values,
        use_cache=True,
    )
    scores = _log_softmax(later.logits).unflatten(0, (rows, count))
    rest = [_taken(scores[:, number], answer[1:]).sum(1) for number, answer in enumerate(answers)]
    return first + torch.stack(rest, 1)


def packed(model: Any, inputs: Inputs, answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """One forward of the question with all answers behind it, kept apart by the attention mask and position ids."""
    import torch

    tail = [token for answer in answers for token in answer[:-1]]
    owner = torch.tensor([number for number, answer in enumerate(answers) for _ in answer[:-1]])
    offset = torch.tensor([place for answer in answers for place in range(len(answer) - 1)])
    more, mask = _extended(inputs, tail), inputs["attention_mask"].bool()
    more["attention_mask"] = _blocks(mask, owner.to(mask.device), model.dtype)
    behind = mask.sum(1, keepdim=True) + offset.to(mask.device)
    more["position_ids"] = torch.cat([_positions(mask), behind], 1)
    scores = _log_softmax(model(**more, logits_to_keep=len(tail) + 1).logits)
    columns, start = [], 1
    for answer in answers:
        steps = [0, *range(start, start + len(answer) - 1)]
        columns.append(_taken(scores[:, steps], answer).sum(1))
        start += len(answer) - 1
    return torch.stack(columns, 1)


WAYS: dict[str, Callable[[Any, Inputs, Sequence[Sequence[int]]], torch.Tensor]] = {
    "packed": packed,
    "cache": cached,
    "separate": separate,
}


def allowed_way(
    model: Any, inputs: Inputs, answers: Sequence[Sequence[int]], wanted: str, dtype: str
) -> tuple[str, list[str]]:
    """The way that a model allows, from `wanted` towards "separate", and why each one before it was left.

    A way is allowed where nothing in the model's configuration forbids it and it gives the log-probabilities of
    "separate" on the questions given, within the rounding of `dtype`.
    """
    left: list[str] = []
    if all(len(answer) == 1 for answer in answers):
        return wanted, left
    ways = list(WAYS)[list(WAYS).index(wanted) :]
    truth = answer_log_probs(model, inputs, answers, "separate") if len(ways) > 1 else None
    for way in ways[:-1]:
        why = _forbidden(model, inputs) if way == "packed" else None
        if why is None:
            try:
                gap = float(np.abs(answer_log_probs(model, inputs, answers, way) - truth).max())
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            else:
                if gap <= TOLERANCE[dtype]:
                    return way, left
                why = f"its log-probabilities differ by {gap:.2g} from separate passes"
        left.append(f"{way}: {why}")
    return ways[-1], left


def _forbidden(model: Any, inputs: Inputs) -> str | None:
    """Why answers cannot be packed behind one another, as far as the configuration says."""
    text = model.config.get_text_config()
    if _has_three_axes(model):
        return "its positions have three axes (M-RoPE)"
    if "token_type_ids" in inputs:
        return "it makes its own attention mask from token types"
    if any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()):
        return "some of its layers do not attend to everything"
    attention = getattr(model.config, "_attn_implementation", "eager")
    return None if attention in ("sdpa", "eager") else f"{attention} attention takes no mask of blocks"


def _blocks(mask: torch.Tensor, owner: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask (N, 1, T + L, T + L): the question is causal, an answer sees it and itself."""
    import torch

    size = mask.shape[1] + len(owner)
    group = torch.cat([torch.full((mask.shape[1],), -1, device=owner.device), owner])
    allowed = (group[None, :] == -1) | (group[None, :] == group[:, None])
    allowed = allowed & torch.ones(size, size, dtype=torch.bool, device=mask.device).tril()
    seen = torch.cat([mask, torch.ones(len(mask), len(owner), dtype=torch.bool, device=mask.device)], 1)
    full = allowed[None] & seen[:, None, :]
    # A padded place sees itself, or its softmax would be over nothing.
    full = full | torch.eye(size, dtype=torch.bool, device=mask.device)
    return torch.zeros(full.shape, dtype=dtype, device=mask.device).masked_fill_(~full, torch.finfo(dtype).min)[:, None]


def _extended(inputs: Inputs, tail: Sequence[int]) -> dict[str, Any]:
    """The inputs with the same tokens behind every question."""
    import torch

    ids = inputs["input_ids"]
    more = torch.tensor(list(tail), device=ids.device, dtype=ids.dtype).expand(len(ids), -1)
    found = dict(inputs) | {"input_ids": torch.cat([ids, more], 1)}
    for name, fill in (("attention_mask", 1), ("token_type_ids", 0), ("mm_token_type_ids", 0)):
        if name in inputs:
            found[name] = torch.cat([inputs[name], torch.full_like(more, fill, dtype=inputs[name].dtype)], 1)
    return found


def _placed(model: Any, inputs: Inputs) -> dict[str, Any]:
    """The inputs with positions that do not count padding, but where the model makes its own (M-RoPE)."""
    if _has_three_axes(model):
        return dict(inputs)
    return {**inputs, "position_ids": _positions(inputs["attention_mask"])}


def _has_three_axes(model: Any) -> bool:
    return hasattr(getattr(model, "model", None), "rope_deltas")


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def _shifted(model: Any, positions: torch.Tensor) -> torch.Tensor:
    """Positions behind a question; with M-RoPE, an image takes fewer of them than it has tokens."""
    if not _has_three_axes(model):
        return positions
    deltas = model.model.rope_deltas
    shift = deltas.repeat_interleave(len(positions) // len(deltas), 0).to(positions.device)
    return (positions + shift)[None].expand(3, -1, -1)


def _taken(scores: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Scores (N, S, V) of one token at each of the first places, (N, len(tokens))."""
    import torch

    places = torch.arange(len(tokens), device=scores.device)
    return scores[:, places, torch.tensor(list(tokens), device=scores.device, dtype=torch.long)]


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1)


def _numpy(scores: torch.Tensor) -> np.ndarray:
    return np.asarray(scores.double().cpu().numpy())
