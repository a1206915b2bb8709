"""Does a picture show what its prompt says? The label classifier's log-likelihood of the prompted labels."""

import torch
from transformers import ResNetForImageClassification

LOST = 0.02


@torch.no_grad()
def agreement(encoder: ResNetForImageClassification, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the labels of log p(label as prompted), one number for each picture; 0 is perfect."""
    logits = torch.cat([encoder(part).logits for part in pictures.split(256)])
    signs = 2 * labels - 1
    return torch.nn.functional.logsigmoid(signs * logits).mean(1)


def threshold_of(encoder: ResNetForImageClassification, pictures: torch.Tensor, labels: torch.Tensor) -> float:
    """The value that 98 % of real films with their own prompts reach."""
    return round(agreement(encoder, pictures, labels).quantile(LOST).item(), 4)
