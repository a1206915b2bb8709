"""Train the picture half of the phantom judge: image quality in four classes. It is a small network, no language model.

    python embedded/train_judge.py --out src/synthchex/assets/phantom/judge --seed 0

High: a film as it was exposed (or as the autoencoder gives it back). Medium: mild blur, noise or exposure. Low: severe
degradation, or a film of a half-trained generator. Not Relevant: no chest film, or noise of an untrained generator.
The other half, agreement with the prompt, is the label classifier's; its threshold is written to `judge.json` here.
"""

import argparse
from pathlib import Path

import common
import failures
import numpy as np
import torch
from degrade import HIGH, LOW, MEDIUM, NOT_RELEVANT, QUALITIES, worsen
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

SHARES = (0.32, 0.24, 0.24, 0.20)


def main() -> None:
    """Train, save, print the held-out confusion."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    films = common.to_bytes(common.load_training().pictures)
    echoes = failures.reconstruct(args.out.parent / "generator", films[: args.echoes])
    poor, hopeless = failures.load(train=True)
    model = build().to(memory_format=torch.channels_last)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch with the classes in fixed shares; a fifth of the bad ones come from bad generators."""
        grades = rng.choice(len(QUALITIES), count, p=SHARES)
        pictures = [_example(int(grade), films, echoes, poor, hopeless, rng) for grade in grades]
        return common.to_picture(np.stack(pictures)), torch.from_numpy(grades)

    def loss(step: int) -> torch.Tensor:
        """Cross-entropy of one fresh batch."""
        pictures, grades = draw(args.batch)
        moved = common.shift(pictures, 2).contiguous(memory_format=torch.channels_last)
        return nn.functional.cross_entropy(model(moved).logits, grades, label_smoothing=0.02)

    def save(average: nn.Module, step: int) -> None:
        """Write the network and its processor."""
        common.save_half(average, args.out)
        ViTImageProcessorPil(size={"height": 64, "width": 64}, image_mean=[0.5], image_std=[0.5]).save_pretrained(
            args.out
        )

    common.train(
        model,
        loss,
        steps=args.steps,
        peak=2e-3,
        checkpoint=common.CACHE / f"judge{args.tag}.pt",
        ema=0.99,
        save=save,
        every=args.every,
    )


def build() -> ResNetForImageClassification:
    """A small residual network for one channel and four qualities."""
    names = dict(enumerate(QUALITIES))
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=24,
            hidden_sizes=[24, 48, 96, 128],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            id2label=names,
            label2id={name: index for index, name in names.items()},
        )
    )


def _example(
    grade: int,
    films: np.ndarray,
    echoes: np.ndarray,
    poor: np.ndarray,
    hopeless: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One picture of a grade."""
    chance = rng.random()
    if grade == LOW and chance < 0.3 and len(poor):
        return poor[rng.integers(len(poor))]
    if grade == NOT_RELEVANT and chance < 0.2 and len(hopeless):
        return hopeless[rng.integers(len(hopeless))]
    source = echoes if chance > 0.6 and grade in (HIGH, MEDIUM) else films
    return worsen(source[rng.integers(len(source))], grade, rng)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--echoes", type=int, default=3000)
    parser.add_argument("--tag", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
