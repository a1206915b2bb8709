"""Does the filter help? Kept films beside random subsets of as many, and beside what was dropped.

    synthchex ablate --images judged --real real.csv --encoder rad-dino --out ablation
    synthchex ablate --images judged --real real.csv --encoder rad-dino --image-text biovil-t --out ablation

Writes `ablation.json` and `ablation.md`, a section for the dataset's card. Scores better than those of a random
choice of as many films are what the filter brought; the share of each label that it kept is what it cost.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthchex import screens
from synthchex.data import shards, sources
from synthchex.models import classifiers, encoders, store
from synthchex.options import Parser, run
from synthchex.trials import ablation


def parser() -> Parser:
    """The options of `synthchex ablate`."""
    options = Parser(
        command="ablate",
        description="Whether filtering helps: kept films beside random subsets of as many, and what was dropped.",
        examples=("synthchex ablate --images judged --real real.csv --encoder rad-dino --out ablation",),
    )
    what = options.add_argument_group("what to compare")
    what.add_argument("--images", required=True, help="output of filter")
    what.add_argument("--real", required=True, help="real films: folder, table, saved dataset or Hub id")
    what.add_argument("--image-dir", help="folder of the images of a table of real films")
    what.add_argument("--out", required=True, type=Path, help="folder to write")
    what.add_argument("--encoder", default=encoders.DEFAULT, help="name, Hub id or folder (default %(default)s)")
    what.add_argument("--image-text", help="image-text network: agreement of films and prompts is compared too")
    what.add_argument(
        "--classifier", help="agreement of films and their labels is compared too; another one than the judge uses"
    )
    what.add_argument(
        "--utility",
        action="store_true",
        help="AUROC on the real films of classifiers trained on the films is compared too (TSTR); both need labels",
    )
    how = options.add_argument_group("how")
    how.add_argument("--draws", type=int, default=100, help="random subsets (default 100)")
    how.add_argument("--seed", type=int, default=0, help="of the subsets (default 0)")
    how.add_argument("--feature-store", type=Path, help="folder of features (default: OUT/features)")
    how.add_argument("--batch-size", type=int, default=32, help="films per forward pass")
    how.add_argument("--num-workers", type=int, default=2, help="threads that read films")
    how.add_argument("--device", help="cpu, cuda, … (default: a GPU where there is one, else the CPU)")
    options.add_common()
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Encode, compare, write."""
    options = parser().parse_args(argv)
    if options.draws < 1:
        raise ValueError(f"--draws must be at least 1, got {options.draws}")
    judged = sources.open_images(options.images, missing="count", whole=True)
    if "drop_reason" not in judged.provenance:
        raise ValueError(f"{options.images} has no column drop_reason; give the output of `synthchex filter`")
    real = sources.open_images(options.real, image_dir=options.image_dir)
    networks: dict[str, Any] = {"encoder": encoders.load_encoder(options.encoder, device=options.device)}
    if options.image_text:
        networks["alignment"] = encoders.load_image_text(options.image_text, device=options.device)
    if options.classifier:
        networks["label agreement"] = classifiers.load_classifier(options.classifier, device=options.device)
    fake = encoded(judged, list(networks.values()), options)
    features = dict(zip(networks, fake.features, strict=True))
    kept = np.array([not judged.provenance["drop_reason"][row] for row in fake.kept])
    labels = None if judged.labels is None else np.asarray(judged.labels)[fake.kept]
    facts = {}
    if "alignment" in features:
        facts["alignment"] = aligned(features["alignment"], judged, fake.kept, networks["alignment"])
    if "label agreement" in features:
        facts["label agreement"] = agreed(features["label agreement"], labels, judged)
    seen = encoded(real, [networks["encoder"]], options)
    found = ablation.ablate(
        seen.features[0],
        features["encoder"],
        kept,
        draws=options.draws,
        seed=options.seed,
        per_film=facts,
        per_subset=useful(features["encoder"], labels, seen, real, options) if options.utility else None,
    )
    found |= {"keep_rates": ablation.keep_rates(labels, kept), "encoder": options.encoder, "skipped": fake.skipped}
    options.out.mkdir(parents=True, exist_ok=True)
    shards.write_whole(options.out / "ablation.json", json.dumps(found, indent=2).encode() + b"\n")
    shards.write_whole(options.out / "ablation.md", ablation.lines(found).encode())
    print(json.dumps(found) if options.json else ablation.lines(found), end="")


def encoded(films: sources.ImageSet, networks: Sequence[Any], options: Any) -> store.Encoded:
    """Features of a set, from the store where it has them."""
    kept = options.feature_store or options.out / "features"
    return store.encode(
        films, networks, kept, batch_size=options.batch_size, num_workers=options.num_workers, quiet=options.quiet
    )


def useful(
    features: np.ndarray, labels: np.ndarray | None, seen: store.Encoded, real: sources.ImageSet, options: Any
) -> dict[str, Callable[[np.ndarray], float]]:
    """What classifiers trained on some of the films are worth on the real ones."""
    if labels is None or real.labels is None:
        raise ValueError("--utility needs the labels of both sets; leave it out")
    theirs = np.asarray(real.labels)[seen.kept]
    return {"TSTR AUROC": ablation.tstr(features, labels, seen.features[0], theirs, seed=options.seed)}


def aligned(vectors: np.ndarray, films: sources.ImageSet, rows: np.ndarray, image_text: Any) -> np.ndarray:
    """Cosine between each film and its prompt."""
    if films.prompts is None:
        raise ValueError(f"{films.source} has no prompts; leave out --image-text")
    texts = image_text.encode_texts([films.prompts[row] for row in rows])
    return np.asarray((vectors * texts).sum(axis=1), float)


def agreed(probabilities: np.ndarray, labels: np.ndarray | None, films: sources.ImageSet) -> np.ndarray:
    """Mean log-likelihood of each film's labels, in nats."""
    if labels is None:
        raise ValueError(f"{films.source} has no labels; leave out --classifier")
    return screens.agreement(probabilities, labels)


if __name__ == "__main__":
    sys.exit(run(main))
