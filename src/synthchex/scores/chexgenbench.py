"""CheXGenBench's published numbers, from features; its CSV files, column for column; its published tables.

What its code measures is measured here as it does (squashed films, one kernel distance of min(N, M) rows of each side,
five neighbours, the first real film of each prompt, conditions joined by prompt text), so that a new model can stand
beside the published ones. What is no quantity at all is left empty, and the row says why. Loads no network.

Source: Dutt et al. 2025 (arXiv:2505.10496); github.com/Raman1121/CheXGenBench at 9a201c1, `metrics/fid.py` and
`metrics/img_text_alignment_scores.py`.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synthchex.data.records import LABELS
from synthchex.maths import kernel, neighbors
from synthchex.maths.frechet import frechet_distance

REGULAR = "regular"
PATHOLOGIES = tuple(sorted(LABELS))
SUBSETS = 100
NEAREST_K = 5
TABLES = ("fidelity", "privacy", "conditional")

FID, KID = ("FID", "FID (RadDino)"), ("KID", "KID (RadDino)")
OVERLAP = ("Precision", "Recall", "Density", "Coverage")
IMAGE_COLUMNS = (FID[0], FID[1], "Inception Score", KID[0], KID[1], *OVERLAP, "Extra Info", "Caption Type")
ALIGNMENT_COLUMNS = ("Alignment_score", "Extra Info")
NO_INCEPTION_SCORE = (
    "Inception Score: their column is a softmax over 2048 pooled activations, which are no class probabilities; left "
    "empty"
)
NO_INCEPTION = "FID and KID: no Inception features were given; left empty"


class Pair(NamedTuple):
    """Features of one encoder: `real` (N, D), `synthetic` (M, D)."""

    real: np.ndarray
    synthetic: np.ndarray


class Group(NamedTuple):
    """Rows of one table row: bool masks `real` (N,), `synthetic` (M,)."""

    real: np.ndarray
    synthetic: np.ndarray


def groups(
    real_prompts: Sequence[str] | None,
    real_labels: np.ndarray | None,
    synthetic_prompts: Sequence[str] | None,
    *,
    rows: tuple[int, int],
) -> dict[str, Group]:
    """The rows that each published number is of: `regular`, and one group per pathology where there are labels.

    Real rows are the first of each prompt, as there; a group has those of them whose label is 1 (uncertain and not
    mentioned are out, as there) and all synthetic rows with one of their prompts, as text.

    Args:
        real_prompts: (N,), or None: no row is dropped then, and there are no pathologies.
        real_labels: (N, 14) states, or None.
        synthetic_prompts: (M,), or None.
        rows: (N, M).
    """
    first = np.ones(rows[0], bool)
    if real_prompts is not None:
        earliest = {prompt: row for row, prompt in reversed(list(enumerate(real_prompts)))}
        first = np.isin(np.arange(rows[0]), list(earliest.values()))
    found = {REGULAR: Group(first, np.ones(rows[1], bool))}
    if real_prompts is None or real_labels is None or synthetic_prompts is None:
        return found
    for label in PATHOLOGIES:
        present = first & (real_labels[:, LABELS.index(label)] == 1)
        prompts = {prompt for prompt, chosen in zip(real_prompts, present, strict=True) if chosen and prompt}
        found[label] = Group(present, np.array([prompt in prompts for prompt in synthetic_prompts], bool))
    return found


def image_rows(
    inception: Pair | None, rad_dino: Pair, grouped: Mapping[str, Group], *, seed: int = 42
) -> list[dict[str, Any]]:
    """One row per group: FID and KID of both encoders, precision, recall, density and coverage of RAD-DINO.

    Args:
        inception: 2048 features of films squashed to 299 x 299, or None to leave their columns empty.
        rad_dino: 768 features of the same squashed films.
        grouped: from `groups`.
        seed: of the 100 random subsets of the larger side, where the counts differ.

    Returns:
        Rows {"Pathology": "regular" or a label, "n_real", "n_synthetic", columns of their CSV: a number that is not
        rounded, or None, "notes": why it is None or what it measures instead}. FID (squared distance) and KID (squared
        MMD): lower is better; precision, recall and coverage (0 to 1) and density: higher is better.

    Raises:
        ValueError: other counts than in the groups; as the metrics do, features not finite or of two widths.
    """
    for pair, what in ((inception, "inception"), (rad_dino, "rad_dino")):
        if pair is not None:
            _check_counts(pair, grouped[REGULAR], what)
    return [
        {
            "Pathology": label,
            "n_real": int(group.real.sum()),
            "n_synthetic": int(group.synthetic.sum()),
            **_measured(inception, rad_dino, group, seed),
        }
        for label, group in grouped.items()
    ]


def alignment_rows(cosines: np.ndarray, grouped: Mapping[str, Group]) -> list[dict[str, Any]]:
    """One row per group: mean BioViL-T cosine of synthetic films with their prompts, each rounded to 3 decimals first.

    Args:
        cosines: (M,), of each synthetic film with its own prompt; see `maths.alignment.cosines`.
        grouped: from `groups`.

    Returns:
        Rows {"Pathology", "n_synthetic", "Alignment_score": -1 to 1, higher is better, None without films, "notes"}.
    """
    rounded = np.array([round(float(cosine), 3) for cosine in cosines])
    rows: list[dict[str, Any]] = []
    for label, group in grouped.items():
        count = int(group.synthetic.sum())
        mean = float(rounded[group.synthetic].mean()) if count else None
        notes = [] if count else ["Alignment_score: no synthetic film has a prompt of this group"]
        rows.append({"Pathology": label, "n_synthetic": count, "Alignment_score": mean, "notes": notes})
    return rows


def subset_kernel_distance(real: np.ndarray, fake: np.ndarray, *, seed: int = 42) -> float:
    """KID with subset_size = min(N, M), the mean over 100 subsets drawn as torchmetrics draws them.

    Where the counts are equal all subsets are the whole sets, so the distance is computed once. Otherwise the smaller
    side is whole and the subsets are selections of one pass over the kernel.

    Args:
        real: features of real films, float, (N, D), N at least 2.
        fake: features of synthetic films, float, (M, D), M at least 2.
        seed: of `torch.manual_seed` in a torchmetrics process.

    Returns:
        Squared MMD, unbiased, no unit, lower is better.

    Raises:
        ValueError: fewer than 2 rows on a side, widths differ, not finite floats.

    Source: torchmetrics `KernelInceptionDistance`, checked against it.
    """
    import torch

    if len(real) == len(fake):
        return kernel.kernel_distance(real, fake).value
    size, generator = min(len(real), len(fake)), torch.Generator().manual_seed(seed)

    def some(rows: int) -> np.ndarray:
        return torch.randperm(rows, generator=generator)[:size].numpy()

    subsets = [(some(len(real)), some(len(fake))) for _ in range(SUBSETS)]
    return float(kernel.compare(real, fake, subsets=subsets).subsets.mean())


def write_image_csv(
    folder: Path, rows: Sequence[Mapping[str, Any]], *, extra_info: str, caption_type: str = "annotated_prompt"
) -> list[Path]:
    """Append rows to `image_generation_metrics.csv` and `conditional_image_generation_metrics.csv`, as there.

    Numbers are rounded to 3 decimals; those that are None are empty cells. Any number of processes may append at once.

    Args:
        folder: made when it is not there.
        rows: from `image_rows`.
        extra_info: name of the model.
        caption_type: name of the synthetic table's prompt column.

    Raises:
        ValueError: a file is there with other columns.
    """
    named = [{**row, "Extra Info": extra_info, "Caption Type": caption_type} for row in rows]
    return _append_both(folder, "image_generation_metrics.csv", IMAGE_COLUMNS, named)


def write_alignment_csv(folder: Path, rows: Sequence[Mapping[str, Any]], *, extra_info: str) -> list[Path]:
    """Append rows of `alignment_rows` to `img_text_alignment.csv` and `conditional_img_text_alignment.csv`.

    Otherwise as `write_image_csv`.
    """
    named = [{**row, "Extra Info": extra_info} for row in rows]
    return _append_both(folder, "img_text_alignment.csv", ALIGNMENT_COLUMNS, named)


def published(table: str = "fidelity") -> list[dict[str, Any]]:
    """Rows of a published table, one per model, with where they come from.

    Args:
        table: "fidelity", "privacy" or "conditional" (FID (RadDino) per pathology).

    Returns:
        Rows {"model", the columns of the table, "invalid": {column: {"value", "reason"}} of what is no quantity,
        "note": what to know of the row, or None, "protocol": "published, other protocol", "source"}.

    Raises:
        ValueError: an unknown table.
    """
    if table not in TABLES:
        raise ValueError(f"table must be one of {list(TABLES)}, got {table!r}")
    figures = published_file()
    part, rows = figures[table], []
    for model, values in part["rows"].items():
        named = dict(zip(part["columns"], values, strict=True))
        invalid = {name: {"value": named.pop(name), "reason": reason} for name, reason in part["invalid"].items()}
        note = "; ".join(filter(None, (part["notes"].get(model), part["note"]))) or None
        origin = {"protocol": figures["protocol"], "source": figures["source"]["cite"]}
        rows.append({"model": model, **named, "invalid": invalid, "note": note, **origin})
    return rows


def published_file() -> dict[str, Any]:
    """The published figures as they lie in the package: source, caveat, and the three tables."""
    place = resources.files("synthchex").joinpath("assets", "chexgenbench.json")
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def _measured(inception: Pair | None, rad_dino: Pair, group: Group, seed: int) -> dict[str, Any]:
    """Numbers and notes of one group."""
    values: dict[str, Any] = dict.fromkeys((FID[0], FID[1], "Inception Score", KID[0], KID[1], *OVERLAP))
    notes = [NO_INCEPTION_SCORE] + ([NO_INCEPTION] if inception is None else [])
    count = int(min(group.real.sum(), group.synthetic.sum()))
    for place, pair in enumerate((inception, rad_dino)):
        if pair is not None and count > 1:
            real, fake = pair.real[group.real], pair.synthetic[group.synthetic]
            values[FID[place]] = frechet_distance(real, fake)
            values[KID[place]] = subset_kernel_distance(real, fake, seed=seed)
            if count <= real.shape[1]:
                notes.append(f"{FID[place]}: {count} films for {real.shape[1]} features: it measures the sample size")
    if count < 2:
        notes.append(f"FID and KID: insufficient n: {count} films on a side, 2 are needed")
    if count <= NEAREST_K:
        notes.append(f"{', '.join(OVERLAP)}: insufficient n: {count} films on a side, {NEAREST_K + 1} are needed")
        return {**values, "notes": notes}
    overlap = neighbors.overlap(rad_dino.real[group.real], rad_dino.synthetic[group.synthetic], nearest_k=NEAREST_K)
    return {**values, **{name: getattr(overlap, name.lower()) for name in OVERLAP}, "notes": notes}


def _check_counts(pair: Pair, group: Group, what: str) -> None:
    counts, wanted = (len(pair.real), len(pair.synthetic)), (len(group.real), len(group.synthetic))
    if counts != wanted:
        raise ValueError(
            f"{what}: expected features of {wanted[0]} real and {wanted[1]} synthetic films, as in the groups, got "
            f"{counts[0]} and {counts[1]}; make both from the same rows"
        )


def _append_both(folder: Path, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Rows of all films to the file of that name, rows of pathologies to conditional_<name>."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path, names, conditional in (
        (folder / name, columns, False),
        (folder / f"conditional_{name}", (*columns, "Pathology"), True),
    ):
        chosen = [row for row in rows if (row["Pathology"] != REGULAR) == conditional]
        if chosen:
            append_rows(path, names, [[_cell(row[column]) for column in names] for row in chosen])
            written.append(path)
    return written


def append_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Append whole lines to a CSV file that other processes may be appending to; the header is written once.

    Raises:
        ValueError: the file has other columns.
    """
    with open(path, "ab+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        text = handle.read().decode("utf-8-sig")
        header = next(csv.reader(io.StringIO(text)), None)
        if header is not None and header != list(columns):
            raise ValueError(
                f"expected the columns {list(columns)} in {path}, got {header}; move the file away or choose another "
                "folder"
            )
        lines = io.StringIO()
        if text and not text.endswith("\n"):
            lines.write("\n")
        csv.writer(lines, lineterminator="\n").writerows(([] if header else [columns]) + list(rows))
        handle.write(lines.getvalue().encode())
        handle.flush()
        os.fsync(handle.fileno())


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(round(value, 3)) if isinstance(value, float) else str(value)
