"""H-LoRA, HealthGPT's adapter: low-rank experts mixed per token, and its published file. Knows nothing of prompts or
films.

    y = W x + s * sum_i g_i(x) B_i A_i x,    g(x) = softmax(R x),    s = alpha / rank * experts

The gate depends on the token, so the experts cannot be merged into W, nor be a LoRA of peft. The A_i stand under each
other in one matrix and the B_i beside each other in another, so all experts are two products, whatever their number.

Source: Lin et al., HealthGPT, arXiv 2502.09838, and `llava/peft/tuners/lora.py` of DCDmllm/HealthGPT at 4d404a5;
written anew. The names in the file follow from that code; the published file itself could not be fetched here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from synthchex.models.networks import load_exact, read_state


class HLoRALinear(nn.Linear):
    """A frozen linear layer with experts; its weight keeps its name, and those of the experts are the published ones.

    Until they are loaded the experts add nothing.
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, experts: int) -> None:
        if experts < 1 or rank < 1 or rank % experts:
            raise ValueError(f"rank must be a positive multiple of experts, got rank {rank} and {experts} experts")
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.experts, self.scaling = experts, alpha / rank * experts
        where: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_route = nn.Linear(base.in_features, experts, bias=False, **where)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, **where)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, **where)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        gates = torch.softmax(self.lora_route(tokens), dim=-1)
        low = (self.lora_A(tokens) * self.scaling).unflatten(-1, (self.experts, -1)) * gates.unsqueeze(-1)
        return functional.linear(tokens, self.weight, self.bias) + self.lora_B(low.flatten(-2))


class Adapter(nn.ModuleDict):
    """A view of a Llava model's parts under the names that they have in HealthGPT's files."""

    def __init__(self, model: nn.Module) -> None:
        inner = model.get_submodule("model")
        projector = inner.get_submodule("multi_modal_projector")
        steps = [projector.get_submodule(name) for name in ("linear_1", "act", "linear_2")]
        parts = {"layers": inner.get_submodule("language_model.layers"), "mm_projector": nn.Sequential(*steps)}
        wrapped = nn.ModuleDict({"model": nn.ModuleDict({"model": nn.ModuleDict(parts)})})
        super().__init__({"base_model": wrapped})


def add_experts(network: nn.Module, *, rank: int, alpha: float, experts: int) -> int:
    """Put experts on every linear layer inside `network`, in place.

    Returns:
        How many layers there are.

    Raises:
        ValueError: `rank` is no multiple of `experts`, or there is no linear layer.
    """
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(f"expected linear layers to adapt, got none in {type(network).__name__}")
    for name in layers:
        parent, _, last = name.rpartition(".")
        adapted = HLoRALinear(network.get_submodule(name), rank=rank, alpha=alpha, experts=experts)  # type: ignore[arg-type]
        setattr(network.get_submodule(parent), last, adapted)
    return len(layers)


def load_adapter(model: nn.Module, path: Path) -> None:
    """Load experts and projector of the comprehension task into a Llava model that has had `add_experts`.

    Args:
        model: a `LlavaForConditionalGeneration`.
        path: the published file, e.g. com_hlora_weights.bin; read without running what is in it.

    Raises:
        ValueError: the file is missing, no table of tensors, or does not hold exactly the experts and the projector;
            the message names missing, unexpected and misshapen tensors.
    """
    if not path.is_file():
        raise ValueError(
            f"expected HealthGPT's adapter at {path}, got no such file; copy it from the model's repository"
        )
    load_exact(Adapter(model), read_state(path), source=path.name, elsewhere=_of_the_base)


def _of_the_base(name: str) -> bool:
    """Whether a tensor comes with the language model, not with the adapter."""
    return ".lora_" not in name and ".mm_projector." not in name
