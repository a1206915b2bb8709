"""Train the phantom CLIP: a small vision transformer and text tower in one space, for text-image alignment.

    python embedded/train_image_text.py --out src/synthchex/assets/phantom/image_text --seed 0

Transformers learn slowly from few films, so the vision tower also imitates the trained encoder (its 8x8 map and its
pooled features) and names the attributes. The text tower is the generator's, already taught to
read; only its projection is trained. The extra heads are thrown away.
"""

import argparse
from pathlib import Path

import common
import torch
import words
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    ResNetForImageClassification,
)

WIDTH = 144
LAYERS = 4
SPACE = 128


def main() -> None:
    """Train, save, print retrieval on the test films."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    films = common.load_training()
    tokenizer = words.build_tokenizer()
    assets = args.out.parent
    model = build(tokenizer, assets / "generator" / "text_encoder")
    model.text_model.requires_grad_(False)
    reports = read(model, words.encode(tokenizer, films.reports))
    teacher = ResNetForImageClassification.from_pretrained(assets / "encoder", dtype=torch.float32)
    teacher.eval().requires_grad_(False)
    kinds = films.attributes.shape[1]
    heads = {"map": nn.Linear(WIDTH, 64), "pooled": nn.Linear(WIDTH, 256), "names": nn.Linear(SPACE, kinds)}
    both = nn.ModuleDict({"model": model, "heads": nn.ModuleDict(heads)})
    rows = common.batches(len(reports), args.batch, args.seed)

    def loss(step: int) -> torch.Tensor:
        """Contrast, attributes and imitation of one batch."""
        pick = next(rows)
        pictures = common.retone(common.shift(films.pictures[pick]))
        with torch.no_grad():
            wanted = teacher.resnet(pictures, output_hidden_states=True)
        seen = model.vision_model(pixel_values=pictures, output_hidden_states=True)
        image = model.visual_projection(seen.pooler_output)
        text = model.text_projection(reports[pick])
        target = _same(films.attributes[pick])
        named = nn.functional.binary_cross_entropy_with_logits(heads["names"](image), films.attributes[pick])
        tokens = heads["map"](seen.hidden_states[2][:, 1:]).transpose(1, 2)
        copied = _gap(tokens, wanted.hidden_states[2].flatten(2)) + _gap(
            heads["pooled"](seen.pooler_output), wanted.pooler_output.flatten(1)
        )
        return contrast(image, text, model.logit_scale, target) + 4 * named + args.imitate * copied

    def save(average: nn.Module, step: int) -> None:
        """Write the model and its processor."""
        common.save_half(average["model"], args.out)
        processor(tokenizer).save_pretrained(args.out)
        processor(tokenizer).image_processor.save_pretrained(args.out)
        common.tidy(args.out)
        print("retrieval", retrieval(average["model"], tokenizer), flush=True)

    checkpoint = common.CACHE / "image_text.pt"
    common.train(both, loss, steps=args.steps, peak=1e-3, checkpoint=checkpoint, ema=0.995, save=save, every=args.every)


def build(tokenizer: "object", text_tower: Path) -> CLIPModel:
    """Patch 8, four layers for the picture; two layers, taken from the generator, for the text."""
    text = CLIPTextConfig.from_pretrained(text_tower)
    text.projection_dim = SPACE
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_channels=1,
        image_size=64,
        patch_size=8,
        projection_dim=SPACE,
    )
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=SPACE)
    ).float()
    start = CLIPTextModel.from_pretrained(text_tower, dtype=torch.float32).state_dict()
    model.text_model.load_state_dict({name.removeprefix("text_model."): value for name, value in start.items()})
    return model


def processor(tokenizer: "object") -> CLIPProcessor:
    """64 pixels, scaled to [-1, 1]; give it single-channel pictures."""
    pictures = CLIPImageProcessorPil(
        size={"height": 64, "width": 64},
        do_center_crop=False,
        do_convert_rgb=False,
        image_mean=[0.5],
        image_std=[0.5],
    )
    return CLIPProcessor(image_processor=pictures, tokenizer=tokenizer)


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Symmetric contrastive loss; films whose findings are the same are positives of one another."""
    image, text = nn.functional.normalize(image, dim=1), nn.functional.normalize(text, dim=1)
    logits = scale.exp().clamp(max=50) * image @ text.T
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def read(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """The text tower's pooled state of every report."""
    return torch.cat([model.text_model(input_ids=part).pooler_output for part in ids.split(512)])


@torch.no_grad()
def embed(model: CLIPModel, tokenizer: "object", films: common.Films) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings of pictures and of reports."""
    model.eval()
    parts = films.pictures.split(256)
    image = torch.cat([model.visual_projection(model.vision_model(pixel_values=part).pooler_output) for part in parts])
    ids = words.encode(tokenizer, films.reports)
    text = model.text_projection(read(model, ids))
    model.train()
    return nn.functional.normalize(image, dim=1), nn.functional.normalize(text, dim=1)


def retrieval(model: CLIPModel, tokenizer: "object", count: int = 256) -> dict[str, float]:
    """Image-to-text recall among the first `count` test films with different reports, and matched-pair AUROC."""
    films = common.load_films(common.TEST_SEED, common.TEST_ROWS)
    first = {report: row for row, report in reversed(list(enumerate(films.reports)))}
    keep = sorted(first.values())[:count]
    chosen = common.Films(
        films.pictures[keep], films.labels[keep], [films.reports[i] for i in keep], films.attributes[keep]
    )
    image, text = embed(model, tokenizer, chosen)
    scores = image @ text.T
    own = scores.diag()[:, None]
    rank = (scores > own).sum(1)
    recall = {f"recall_at_{k}": round((rank < k).float().mean().item(), 4) for k in (1, 5, 10)}
    auroc = (own > scores).float().sum().item() / (len(keep) * (len(keep) - 1))
    return {**recall, "median_rank": float(rank.median() + 1), "matched_auroc": round(auroc, 4), "count": len(keep)}


def _same(attributes: torch.Tensor) -> torch.Tensor:
    """Target distribution: rows with identical attributes share the weight."""
    equal = (torch.cdist(attributes, attributes, p=1) < 0.5).float()
    return equal / equal.sum(1, keepdim=True)


def _gap(got: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error in units of the target's variance."""
    return ((got - wanted) ** 2).mean() / wanted.var()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--imitate", type=float, default=0.5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
