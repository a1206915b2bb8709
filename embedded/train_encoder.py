"""Train the phantom's label classifier, whose pooled features are also the embedded distance features.

    python embedded/train_encoder.py --out src/synthchex/assets/phantom/encoder --seed 0

A second run with another seed and `--widths` gives the independent referee that `measure.py` needs; it is not shipped.
"""

import argparse
from pathlib import Path

import common
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from synthchex.phantom import LABELS


def main() -> None:
    """Train, save, print the held-out AUROC."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    films = common.load_training()
    model = build(args.widths, args.depths).to(memory_format=torch.channels_last)
    extra = nn.Linear(args.widths[-1], films.attributes.shape[1])
    both = nn.ModuleDict({"model": model, "extra": extra})
    rows = common.batches(len(films.pictures), args.batch, args.seed)

    def loss(step: int) -> torch.Tensor:
        """Labels by the shipped head, side, grade and zone by a head that is thrown away."""
        pick = next(rows)
        pictures = common.retone(common.shift(films.pictures[pick]))
        features = model.resnet(pictures).pooler_output.flatten(1)
        entropy = nn.functional.binary_cross_entropy_with_logits
        return entropy(model.classifier(features), films.labels[pick]) + entropy(
            extra(features), films.attributes[pick]
        )

    def save(average: nn.Module, step: int) -> None:
        """Write the shipped part."""
        common.save_half(average["model"], args.out)
        processor().save_pretrained(args.out)
        print("held-out mean AUROC", round(held_out(average["model"]).mean().item(), 4), flush=True)

    checkpoint = common.CACHE / f"encoder_{args.seed}.pt"
    common.train(both, loss, steps=args.steps, peak=2e-3, checkpoint=checkpoint, ema=0.995, save=save, every=args.every)


def build(widths: list[int], depths: list[int]) -> ResNetForImageClassification:
    """A small residual network for one channel and the 14 labels."""
    names = dict(enumerate(LABELS))
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=widths[0],
            hidden_sizes=widths,
            depths=depths,
            layer_type="basic",
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type="multi_label_classification",
        )
    )


def processor() -> ViTImageProcessorPil:
    """Resize to 64 pixels and scale to [-1, 1]; give it single-channel pictures."""
    return ViTImageProcessorPil(size={"height": 64, "width": 64}, image_mean=[0.5], image_std=[0.5])


def held_out(model: ResNetForImageClassification) -> torch.Tensor:
    """AUROC of every label on the test films."""
    films = common.load_films(common.TEST_SEED, common.TEST_ROWS)
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(part).logits for part in films.pictures.split(256)])
    model.train()
    return torch.tensor([roc_auc_score(films.labels[:, i], scores[:, i]) for i in range(len(LABELS))])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--widths", type=int, nargs=4, default=[32, 64, 128, 256])
    parser.add_argument("--depths", type=int, nargs=4, default=[2, 2, 2, 1])
    return parser.parse_args()


if __name__ == "__main__":
    main()
