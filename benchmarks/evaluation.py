"""The evaluation beside CheXGenBench's loop; how busy the encoder is; memory and time as the sets grow.

    python benchmarks/evaluation.py loop --pairs 4352          # overall + 14 labels, two encoders
    python benchmarks/evaluation.py busy --films 512           # share of the time that a ViT-S spends computing
    python benchmarks/evaluation.py growth --rows 25000 50000 100000

The loop is re-implemented from `metrics/fid.py` and `metrics/img_text_alignment_scores.py` of CheXGenBench (9a201c1):
15 runs, each of which decodes its films and passes every batch through Inception for FID (2), KID (2) and the Inception
Score (1), through RAD-DINO for FID (2), KID (2) and the neighbours (2), takes 100 kernel distances of min(N, M) rows,
and aligns one film at a time. It uses the same networks as ours. Networks here are small and random: their time is
proportional to the number of passes, which is printed, and values do not matter.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 256
# Share of films with each label in the published 20,000-row table of CheXGenBench's training set, in the usual order.
PREVALENCE = (0.438, 0.028, 0.186, 0.153, 0.026, 0.109, 0.034, 0.061, 0.184, 0.047, 0.206, 0.008, 0.019, 0.279)


class Counted:
    """An encoder that counts films and the seconds of its forward passes."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.key, self.name, self.films, self.seconds = encoder, encoder.key, encoder.name, 0, 0.0

    def prepare(self, batch: Any) -> Any:
        """As the encoder's."""
        return self.encoder.prepare(batch)

    def forward(self, inputs: Any) -> np.ndarray:
        """As the encoder's, counted."""
        began = time.perf_counter()
        found: np.ndarray = self.encoder.forward(inputs)
        self.seconds += time.perf_counter() - began
        self.films += len(inputs)
        return found

    def encode(self, films: Any, *, batch_size: int = 64) -> np.ndarray:
        """Prepare and forward in batches, in this thread."""
        starts = range(0, len(films), batch_size)
        return np.concatenate([self.forward(self.prepare(films[start : start + batch_size])) for start in starts])


def make_films(folder: Path, count: int, seed: int) -> tuple[list[Path], np.ndarray, list[str]]:
    """Phantoms as PNG files of SIDE x SIDE, their labels (random, with the benchmark's prevalences) and prompts."""
    from PIL import Image

    from synthchex import phantom

    made = phantom.make(min(count, 512), seed=seed)
    rng, paths = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for index in range(count):
        film = Image.fromarray(made.images[index % len(made.images)]).resize((SIDE, SIDE))
        noisy = np.asarray(film, int) + rng.integers(-2, 3, (SIDE, SIDE))
        paths.append(folder / f"{index:06d}.png")
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(paths[-1], compress_level=1)
    labels = (rng.random((count, len(PREVALENCE))) < PREVALENCE).astype(np.float32)
    return paths, labels, [f"{made.reports[index % len(made.reports)]} {index}" for index in range(count)]


def networks(folder: Path) -> tuple[Counted, Counted, Any]:
    """A random ViT in RAD-DINO's place, the phantom encoder in Inception's, the phantom CLIP for alignment."""
    from synthchex.models import encoders

    return (
        Counted(encoders.load_encoder("phantom")),
        Counted(encoders.load_encoder(vit(folder / "vit", hidden=96, layers=4, side=112))),
        encoders.load_image_text("phantom"),
    )


def vit(folder: Path, *, hidden: int, layers: int, side: int) -> str:
    """A random ViT and its processor, saved."""
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        image_size=side,
        patch_size=16,
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return str(folder)


def loop(pairs: int) -> None:
    """Theirs and ours on the same films and networks."""
    from synthchex.data import sources
    from synthchex.data.records import LABELS
    from synthchex.scores import Networks, Request, score

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real, labels, prompts = make_films(folder / "real", pairs, 1)
        fake, _, _ = make_films(folder / "fake", pairs, 2)
        first, second, image_text = networks(folder)
        sets = [
            sources.ImageSet(side, [p.name for p in paths], paths.__getitem__, prompts, labels)
            for side, paths in (("real", real), ("synthetic", fake))
        ]
        request = Request(encoders=("phantom", "vit"), image_text="phantom")
        began = time.perf_counter()
        both: Any = {"phantom": first, "vit": second}
        score(sets[0], sets[1], request, None, networks=Networks(both, image_text, {}), quiet=True)
        ours, passes = time.perf_counter() - began, first.films + second.films
        first, second, image_text = networks(folder)
        began = time.perf_counter()
        every = [np.ones(pairs, bool)] + [labels[:, i] == 1 for i in range(len(LABELS))]
        for mask in every:
            rows = np.flatnonzero(mask)
            if len(rows) > 5:
                one_run(
                    [real[i] for i in rows],
                    [fake[i] for i in rows],
                    (first, second),
                    image_text,
                    [prompts[i] for i in rows],
                )
        theirs = time.perf_counter() - began
        print(f"ours {ours:.1f} s, {passes} passes; their loop {theirs:.1f} s, {first.films + second.films} passes")
        print(f"ratio {theirs / ours:.1f}x; by passes alone {(first.films + second.films) / passes:.1f}x")


def one_run(
    real: list[Path], fake: list[Path], encoders: tuple[Counted, Counted], image_text: Any, prompts: list[str]
) -> None:
    """One of their 15 runs."""
    inception, rad_dino = encoders
    kept: dict[str, list[np.ndarray]] = {}
    for side, paths in (("real", real), ("fake", fake)):
        for start in range(0, len(paths), 64):
            batch = [squashed(path) for path in paths[start : start + 64]]
            uses = [
                ("fid", inception),
                ("kid", inception),
                ("fid-rd", rad_dino),
                ("kid-rd", rad_dino),
                ("prdc", rad_dino),
            ]
            for use, encoder in uses + ([("is", inception)] if side == "fake" else []):
                kept.setdefault(f"{use} {side}", []).append(encoder.encode(batch))
    features = {key: np.concatenate(parts) for key, parts in kept.items()}
    for use in ("fid", "fid-rd"):
        fid(features[f"{use} real"], features[f"{use} fake"])
    for use in ("kid", "kid-rd"):
        kid(features[f"{use} real"], features[f"{use} fake"])
    prdc(features["prdc real"], features["prdc fake"])
    for path, prompt in zip(fake, prompts, strict=True):
        round(float((image_text.encode_images([squashed(path)]) * image_text.encode_texts([prompt])).sum()), 3)


def squashed(path: Path) -> np.ndarray:
    """Their decode: RGB, 299 x 299."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR))


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """As torchmetrics: float64 covariances, eigenvalues of their product."""
    import torch

    means, covariances = [], []
    for side in (real, fake):
        rows = torch.from_numpy(side).double()
        means.append(rows.mean(0))
        covariances.append(torch.cov(rows.T))
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root)


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """As torchmetrics with subset_size = min(N, M): 100 distances of whole kernel matrices."""
    import torch

    x, y, size, values = torch.from_numpy(real), torch.from_numpy(fake), min(len(real), len(fake)), []
    for _ in range(100):
        a, b = x[torch.randperm(len(x))[:size]], y[torch.randperm(len(y))[:size]]
        one, two, across = ((left @ right.T / x.shape[1] + 1) ** 3 for left, right in ((a, a), (b, b), (a, b)))
        inner = (one.sum() - one.diagonal().sum() + two.sum() - two.diagonal().sum()) / (size * (size - 1))
        values.append(float(inner - 2 * across.mean()))
    return float(np.mean(values))


def prdc(real: np.ndarray, fake: np.ndarray) -> float:
    """As the package prdc: three whole distance matrices."""
    from scipy.spatial.distance import cdist

    within = [np.partition(cdist(side, side), 5, axis=1)[:, 5] for side in (real, fake)]
    across = cdist(real, fake)
    return float((across < within[0][:, None]).any(0).mean() + (across < within[1]).any(1).mean())


def busy(films: int) -> None:
    """Share of the wall time of encoding that a ViT-S spends in its forward pass; the second run beside it."""
    import torch

    from synthchex.data import sources
    from synthchex.models import encoders, store

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, _, _ = make_films(folder / "films", films, 1)
        images = sources.ImageSet("films", [path.name for path in paths], paths.__getitem__)
        encoder = Counted(encoders.load_encoder(vit(folder / "vit", hidden=384, layers=12, side=224)))
        times = []
        for _ in range(2):
            began = time.perf_counter()
            store.encode(images, [encoder], folder / "store", quiet=True)
            times.append(time.perf_counter() - began)
        share = encoder.seconds / times[0]
        print(f"{films} films: {times[0]:.1f} s, of which forward {encoder.seconds:.1f} s ({share:.0%})")
        print(f"second run {times[1]:.2f} s, {times[0] / times[1]:.0f}x faster")


def growth(rows: list[int], width: int) -> None:
    """Wall time and peak memory of all scores of features, overall and for 14 labels, each in a fresh process."""
    sizes, seconds = [], []
    print("| films of each side | wall s | peak MB | MB of features |\n|---|---|---|---|")
    for count in rows:
        command = [sys.executable, __file__, "one", "--rows", str(count), "--width", str(width)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {count} | {found['seconds']:.0f} | {found['mb']:.0f} | {8 * count * width / 2**20:.0f} |", flush=True)
        sizes.append(count)
        seconds.append(found["seconds"])
    if len(rows) > 1:
        print(f"time grows as N^{np.polyfit(np.log(sizes), np.log(seconds), 1)[0]:.2f}")


def one(count: int, width: int) -> None:
    """Scores of mapped features in this process."""
    from synthchex.scores import Request, measures
    from synthchex.scores.groups import members

    with tempfile.TemporaryDirectory() as name:
        sides, labels = [], []
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            features = np.memmap(Path(name) / str(seed), np.float32, "w+", shape=(count, width))
            mixing = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32) / width**0.5
            for start in range(0, count, 4096):
                part = rng.normal(size=(min(4096, count - start), width)).astype(np.float32)
                features[start : start + 4096] = np.tanh(part @ mixing + 0.01 * seed)
            sides.append(features)
            labels.append((rng.random((count, len(PREVALENCE))) < PREVALENCE).astype(np.float32))
        fake, real = (members(part) for part in labels)
        groups = {label: (fake[label].present, real[label].present) for label in fake}
        began = time.perf_counter()
        measures.distances(sides[0], sides[1], groups, Request(), None, whole=True)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("loop", "busy", "growth", "one"))
    parser.add_argument("--pairs", type=int, default=4352)
    parser.add_argument("--films", type=int, default=512)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--width", type=int, default=768)
    options = parser.parse_args()
    if options.what == "loop":
        loop(options.pairs)
    elif options.what == "busy":
        busy(options.films)
    elif options.what == "growth":
        growth(options.rows, options.width)
    else:
        one(options.rows[0], options.width)


if __name__ == "__main__":
    main()
