"""Measure every shipped phantom model and write the figures and the model cards.

    python embedded/measure.py --assets src/synthchex/assets/phantom --referee <folder of an independent encoder>

The referee is an encoder of another seed and shape (`train_encoder.py --seed 77 --widths 40 80 128 192 ...`).
It took no part in training anything, so its AUROC between prompt and picture says how far prompts steer the generator.
"""

import argparse
import json
import time
from pathlib import Path

import cards
import common
import failures
import numpy as np
import torch
import train_image_text
from agreement import agreement, threshold_of
from degrade import QUALITIES, worsen
from diffusers import StableDiffusionPipeline
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, CLIPModel, ResNetForImageClassification

from synthchex import phantom
from synthchex.phantom import LABELS
from synthchex.phantom.findings import FINDINGS, Chart

PROMPT_SEED = 4
SHOWN_FROM = 0.75


def main() -> None:
    """Measure everything, write `figures.json` and the cards."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    test = common.load_films(common.TEST_SEED, common.TEST_ROWS)
    referee, encoder = _classifier(args.referee), _classifier(args.assets / "encoder")
    synthetic, labels, speed = sample(args.assets / "generator", args.count, args.steps, args.guidance)
    np.savez(common.CACHE / "synthetic.npz", images=synthetic, labels=labels)
    figures = {
        "encoder": measure_encoder(encoder, test),
        "image_text": measure_image_text(args.assets / "image_text"),
        "generator": {
            **measure_generator(args.assets / "generator", referee, test, synthetic, labels),
            "sampling": {"steps": args.steps, "guidance_scale": args.guidance, "cpu_s_per_image": round(speed, 4)},
            "memorisation": memorisation(encoder, synthetic, test),
            "distance": distances(encoder, args.assets / "generator", synthetic, test),
        },
        "judge": measure_judge(args.assets, encoder, test, synthetic, labels),
        "bytes": {folder.name: _bytes(folder) for folder in sorted(args.assets.iterdir()) if folder.is_dir()},
        "training_cpu_s": cpu_seconds(),
    }
    figures["shown_labels"] = [
        label for label, value in figures["generator"]["auroc"]["synthetic"].items() if value >= SHOWN_FROM
    ]
    common.write_json(args.assets / "figures.json", figures)
    cards.write(args.assets, figures)
    print(json.dumps(figures, indent=1))


def sample(folder: Path, count: int, steps: int, guidance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Films for new prompts, the labels asked for, and the CPU seconds of one film."""
    prompts, labels = phantom.write_reports(count, seed=PROMPT_SEED)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    began, films = time.process_time(), []
    for first in range(0, count, 64):
        part = pipeline(
            prompts[first : first + 64],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(first),
            output_type="np",
        )
        films.append(np.round(part.images[..., 0] * 255).astype(np.uint8))
    return np.concatenate(films), labels, (time.process_time() - began) / count


def measure_encoder(encoder: ResNetForImageClassification, test: common.Films) -> dict:
    """AUROC of every label on held-out films."""
    return {"films": len(test.labels), **_aurocs(encoder, test.pictures, test.labels)}


def measure_image_text(folder: Path) -> dict:
    """Retrieval among 256 different reports, and matched against unmatched pairs."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    return train_image_text.retrieval(model, AutoTokenizer.from_pretrained(folder))


def measure_generator(
    folder: Path,
    referee: ResNetForImageClassification,
    test: common.Films,
    synthetic: np.ndarray,
    labels: np.ndarray,
) -> dict:
    """The referee's AUROC on real films, on the autoencoder's echo of them, and on synthetic films."""
    pictures, wanted = test.pictures[:1024], test.labels[:1024]
    echo = common.to_picture(failures.reconstruct(folder, common.to_bytes(pictures)))
    error = ((echo - pictures) ** 2).mean()
    found = {
        "real": _aurocs(referee, pictures, wanted),
        "reconstruction": _aurocs(referee, echo, wanted),
        "synthetic": _aurocs(referee, common.to_picture(synthetic), torch.from_numpy(labels)),
    }
    return {
        "prompts": len(labels),
        "positives": dict(zip(LABELS, labels.sum(0).tolist(), strict=True)),
        "auroc": {name: part["auroc"] for name, part in found.items()},
        "mean_auroc": {name: part["mean_auroc"] for name, part in found.items()},
        "side_accuracy": {
            "real": side_accuracy(referee, test.pictures, phantom.draw_charts(common.TEST_ROWS, seed=common.TEST_SEED)),
            "synthetic": side_accuracy(
                referee, common.to_picture(synthetic), phantom.draw_charts(len(labels), seed=PROMPT_SEED)
            ),
        },
        "reconstruction_psnr_db": round(10 * torch.log10(4 / error).item(), 2),
    }


@torch.no_grad()
def side_accuracy(referee: ResNetForImageClassification, pictures: torch.Tensor, chart: Chart) -> float:
    """Share of one-sided findings that the referee's side head (kept in its checkpoint) sees on the side asked for."""
    heads = torch.load(common.CACHE / "encoder_77.pt", weights_only=True)["average"]
    logits = _features(referee, pictures) @ heads["extra.weight"].T + heads["extra.bias"]
    first, right = len(FINDINGS), []
    for place, name in enumerate(common.SIDED):
        asked = torch.tensor(np.stack([chart.on_side(name, side) for side in (0, 1)], 1))
        one = asked.sum(1) == 1
        seen = logits[one, first + 2 * place : first + 2 * place + 2].argmax(1)
        right.append(seen == asked[one].int().argmax(1))
    return round(torch.cat(right).float().mean().item(), 4)


def measure_judge(
    assets: Path, encoder: ResNetForImageClassification, test: common.Films, synthetic: np.ndarray, labels: np.ndarray
) -> dict:
    """Confusion on held-out degradations, verdicts on generators, and label agreement."""
    judge = _classifier(assets / "judge")
    rng = np.random.default_rng(123)
    films = common.to_bytes(test.pictures)
    truth = np.arange(1024) % len(QUALITIES)
    spoiled = np.stack([worsen(film, int(grade), rng) for film, grade in zip(films[:1024], truth, strict=True)])
    said = _verdicts(judge, spoiled)
    poor, hopeless = failures.load(train=False)
    bad = np.concatenate([_verdicts(judge, poor), _verdicts(judge, hopeless)])
    right = np.concatenate([said == truth, bad >= 2])
    echo = failures.reconstruct(assets / "generator", films[:512])
    return {
        "accuracy_degradations": round(float((said == truth).mean()), 4),
        "accuracy": round(float(right.mean()), 4),
        "confusion": _confusion(truth, said),
        "half_trained_generator": _tally(_verdicts(judge, poor)),
        "untrained_generator": _tally(_verdicts(judge, hopeless)),
        "final_generator": _tally(_verdicts(judge, synthetic)),
        "reconstruction": _tally(_verdicts(judge, echo)),
        "label_agreement": _measure_agreement(assets / "judge", encoder, test, synthetic, labels),
    }


def _measure_agreement(
    folder: Path, encoder: ResNetForImageClassification, test: common.Films, synthetic: np.ndarray, labels: np.ndarray
) -> dict:
    """Share of pairs that pass the rule of `agreement.py`, whose threshold is set on training films and stored."""
    train = common.load_films(common.TRAIN_SEEDS[0], common.TRAIN_ROWS)
    threshold = threshold_of(encoder, train.pictures[:4096], train.labels[:4096])
    rule = "mean over the 14 labels of log p(label as prompted) by the phantom encoder must reach the threshold"
    common.write_json(folder / "judge.json", {"label_agreement_threshold": threshold, "rule": rule})
    other = test.labels.roll(1, 0)
    differ = (other != test.labels).sum(1)
    matched = agreement(encoder, test.pictures, test.labels)
    swapped = agreement(encoder, test.pictures, other)
    made = agreement(encoder, common.to_picture(synthetic), torch.from_numpy(labels).float())
    share = {
        "matched_films": matched >= threshold,
        "swapped_prompts": (swapped >= threshold)[differ > 0],
        "swapped_prompts_3_labels_apart": (swapped >= threshold)[differ >= 3],
        "synthetic": made >= threshold,
    }
    return {"threshold": threshold, "pass": {name: round(ok.float().mean().item(), 4) for name, ok in share.items()}}


@torch.no_grad()
def memorisation(encoder: ResNetForImageClassification, synthetic: np.ndarray, test: common.Films) -> dict:
    """Distance to the nearest training film, of synthetic films and of held-out ones, in pixels and in features."""
    train = common.load_training()
    made = common.to_picture(synthetic)
    count = min(len(made), 512)
    result = {}
    for name, view in (("pixels", _pixels), ("features", lambda part: _features(encoder, part))):
        base = view(train.pictures)
        fresh, held = (_nearest(view(part[:count]), base) for part in (made, test.pictures))
        result[name] = {
            "synthetic_median": round(fresh.median().item(), 4),
            "held_out_median": round(held.median().item(), 4),
            "synthetic_nearer_than_1_percent_of_held_out": round(
                (fresh < held.quantile(0.01)).float().mean().item(), 4
            ),
        }
    return result


def distances(encoder: ResNetForImageClassification, folder: Path, synthetic: np.ndarray, test: common.Films) -> dict:
    """Frechet distance of the pooled features to 4096 training films."""
    train = common.load_films(common.TRAIN_SEEDS[0], common.TRAIN_ROWS).pictures[:4096]
    base = _features(encoder, train)
    count = min(len(synthetic), 1024)
    held = test.pictures[:count]
    blur = torch.nn.functional.avg_pool2d(held, 3, 1, 1)
    echo = common.to_picture(failures.reconstruct(folder, common.to_bytes(held)))
    sets = {
        "held_out": held,
        "blurred": blur,
        "reconstruction": echo,
        "synthetic": common.to_picture(synthetic)[:count],
    }
    return {name: round(_frechet(base, _features(encoder, part)), 3) for name, part in sets.items()}


def cpu_seconds() -> dict:
    """CPU seconds of every training run, from its checkpoint."""
    paths = [path for path in sorted(common.CACHE.glob("*.pt")) if path.stem != "latents"]
    return {path.stem: round(torch.load(path, weights_only=True)["cpu_s"]) for path in paths}


def _frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first.double().numpy(), second.double().numpy()
    one, two = np.cov(a.T), np.cov(b.T)
    root = sqrtm(one @ two).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root))


def _pixels(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.flatten(1) / 64


@torch.no_grad()
def _features(encoder: ResNetForImageClassification, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([encoder.resnet(part).pooler_output.flatten(1) for part in pictures.split(256)])


def _nearest(rows: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.cdist(rows, part).min(1).values for part in base.split(5000)]).min(0).values


def _classifier(folder: Path) -> ResNetForImageClassification:
    return ResNetForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def _aurocs(model: ResNetForImageClassification, pictures: torch.Tensor, labels: torch.Tensor) -> dict:
    scores = torch.cat([model(part).logits for part in pictures.split(256)])
    found = {label: round(float(roc_auc_score(labels[:, i], scores[:, i])), 4) for i, label in enumerate(LABELS)}
    return {"auroc": found, "mean_auroc": round(float(np.mean(list(found.values()))), 4)}


@torch.no_grad()
def _verdicts(judge: ResNetForImageClassification, films: np.ndarray) -> np.ndarray:
    parts = common.to_picture(films).split(256) if len(films) else ()
    return np.concatenate([np.zeros(0, int), *[judge(part).logits.argmax(1).numpy() for part in parts]])


def _confusion(truth: np.ndarray, said: np.ndarray) -> dict:
    return {name: _tally(said[truth == grade]) for grade, name in enumerate(QUALITIES)}


def _tally(said: np.ndarray) -> dict:
    return {name: int((said == grade).sum()) for grade, name in enumerate(QUALITIES)}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--referee", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--guidance", type=float, default=2.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
