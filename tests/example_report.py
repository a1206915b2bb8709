"""An evaluation as it may look: 14 labels, two encoders, one classifier with missing heads, films of the phantom.

Numbers are drawn, not measured; they keep to the relations of real ones (a floor below its score, wider intervals at
smaller n, no numbers where there are too few films).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synthchex import phantom
from synthchex.data.records import LABELS
from synthchex.report import Neighbours, Ranked, ReportImages, spread_rows

N_REAL, N_SYNTHETIC, MATCHED = 2400, 2000, 60
SHARES = (0.33, 0.05, 0.2, 0.35, 0.03, 0.16, 0.06, 0.09, 0.24, 0.05, 0.27, 0.011, 0.02, 0.3)
ENCODERS = ({"name": "rad-dino", "key": "microsoft/rad-dino@4e5a1b", "width": 768, "kind": "image"},
            {"name": "inception", "key": "pt_inception-2015-12-05@6726825d", "width": 2048, "kind": "image"},
            {"name": "medsiglip", "key": "google/medsiglip-448@77ab12", "width": 1152, "kind": "image-text"},
            {"name": "xrv-pc", "key": "densenet121-res224-pc@9f31", "width": 18, "kind": "classifier"})  # fmt: skip


def around(value: float, half: float) -> list[float]:
    """An interval."""
    return [value - half, value + half]


def metric(encoder: str, key: str, name: str, value: float | None, better: str, **more: Any) -> dict[str, Any]:
    """A row of `overall`."""
    row = {"metric": key, "label": name, "encoder": encoder, "value": value, "better": better, "state": "ok"}
    row |= {"interval": None, "floor": None, "matched": None, "note": None}
    return row | {"n_real": N_REAL, "n_synthetic": N_SYNTHETIC, "n_floor": [1200, 1200]} | more


def overall() -> list[dict[str, Any]]:
    """Two image encoders, then the image-text network."""
    rows = []
    for encoder, scale in (("rad-dino", 1.0), ("inception", 0.22)):
        rows += [
            metric(encoder, "fid", "FID", 54.2251 * scale, "lower", interval=around(54.2 * scale, 2.1), floor=11.3871),
            metric(encoder, "kid", "KID", 0.0163456 * scale, "lower", interval=around(0.0163 * scale, 0.0021 * scale),
                   floor=-0.000211, matched=0.0166 * scale),
            metric(encoder, "cmmd", "CMMD", 0.41234 * scale, "lower", interval=around(0.412 * scale, 0.03),
                   floor=0.0213),
            metric(encoder, "precision", "Precision", 0.681 + scale / 9, "higher",
                   interval=around(0.681 + scale / 9, 0.021), floor=0.8612),
            metric(encoder, "recall", "Recall", 0.614 - scale / 9, "higher", interval=around(0.614 - scale / 9, 0.024),
                   floor=0.8573),
            metric(encoder, "density", "Density", 0.912, "higher", interval=around(0.912, 0.043), floor=1.0032),
            metric(encoder, "coverage", "Coverage", 0.548, "higher", interval=around(0.548, 0.018), floor=0.9671),
            metric(encoder, "vendi", "Vendi score", 31.42, "higher", floor=44.91),
        ]  # fmt: skip
    return [
        *rows,
        metric("", "ms_ssim", "MS-SSIM of pairs", 0.2912, "lower", interval=[0.284, 0.299], floor=0.2411),
        metric("", "frd", "FRD", None, "lower", state="not measured", note="needs at least 100 masks"),
        metric("medsiglip", "alignment", "Alignment (cosine)", 0.2931, "higher", interval=[0.289, 0.297], floor=0.3312,
               note="floor: real films with their own reports"),
        metric("medsiglip", "alignment_image_to_text_r10", "Retrieval R@10", 0.3122, "higher", floor=0.4425,
               note="floor: real films with their own reports"),
    ]  # fmt: skip


def label_rows(encoder: str, seed: int) -> list[dict[str, Any]]:
    """One row per label; the three rarest have no numbers."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, part in zip(LABELS, SHARES, strict=True):
        row: dict[str, Any] = {"label": label, "encoder": encoder}
        row |= {"n_real": round(part * N_REAL), "n_synthetic": round(part * N_SYNTHETIC)}
        rows.append(row | (scores(row, rng) if row["n_synthetic"] >= MATCHED else {"state": "insufficient n"}))
    return rows


def scores(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The numbers of one label."""
    n = row["n_synthetic"]
    differs = row["label"] in ("Pneumothorax", "Support Devices", "Edema")
    kid, floor = (0.026 if differs else 0.008) + rng.normal(0, 0.1 / n), rng.normal(0, 0.08 / n)
    half = 0.9 / n
    gap, p = kid - floor + rng.normal(0, 0.001), 0.0004 if differs else rng.uniform(0.02, 0.6)
    share = 0.2 if row["label"] == "Pneumothorax" else rng.uniform(0.5, 1.05)
    found = {"kid": kid, "kid_interval": around(kid, half), "kid_floor": floor}
    found |= {"cmmd": 0.3 + 20 / n, "cmmd_interval": around(0.3 + 20 / n, 5 / n), "fid": 30 + 6000 / n}
    found |= {"precision": rng.uniform(0.7, 0.8), "recall": rng.uniform(0.42, 0.55), "density": rng.uniform(0.8, 1.0)}
    found |= {"coverage": rng.uniform(0.5, 0.62), "vendi": rng.uniform(12, 25), "ms_ssim": rng.uniform(0.25, 0.35)}
    found |= {"alignment": rng.uniform(0.25, 0.32), "alignment_interval": [0.24, 0.33], "p_value": p, "state": "ok"}
    found["matched"] = {"n": MATCHED, "draws": 50, "kid": kid, "kid_floor": floor, "kid_gap": gap, "fid": 130.2}
    found["matched"] |= {"kid_gap_interval": around(gap, 0.009), "fid_floor": 98.7, "fid_ratio": 130.2 / 98.7}
    found |= {"p_adjusted": min(1.0, 11 * p), "flagged": 11 * p < 0.05, "note": None}
    found |= {"distance": kid, "distance_interval": around(kid, half)}
    ceiling = rng.uniform(0.03, 0.06)
    found["conditional"] = {"to_same": kid, "to_other": kid + share * ceiling, "gap": share * ceiling}
    found["conditional"] |= {"gap_interval": around(share * ceiling, half), "ceiling": ceiling, "share": share}
    return found


def faithfulness() -> dict[str, Any]:
    """One independent classifier without three heads."""
    rng = np.random.default_rng(7)
    rows = []
    missing = ["No Finding", "Pleural Other", "Support Devices"]
    for label, part in zip(LABELS, SHARES, strict=True):
        n, m = round(part * N_SYNTHETIC), round(part * N_REAL)
        row: dict[str, Any] = {"label": label, "n_positive": n, "n_negative": N_SYNTHETIC - n}
        row |= {"n_positive_real": m, "n_negative_real": N_REAL - m, "state": "ok"}
        real, lost = rng.uniform(0.75, 0.93), rng.uniform(-0.02, 0.09) + (0.2 if label == "Pneumothorax" else 0)
        row |= {"auroc": real - lost, "auroc_interval": around(real - lost, 0.4 / n**0.5), "average_precision": 0.4}
        row |= {"auroc_real": real, "auroc_real_interval": around(real, 0.4 / m**0.5), "average_precision_real": 0.5}
        row |= {"difference": -lost, "difference_interval": around(-lost, 0.6 / n**0.5)}
        few = {key: value for key, value in row.items() if key == "label" or key.startswith("n_")}
        if label not in missing:
            rows.append(row if n >= MATCHED else few | {"state": "insufficient n"})
    mean = {"auroc": 0.801, "auroc_real": 0.851, "difference": -0.05, "difference_interval": [-0.061, -0.039]}
    check = {"n": 660, "mean_highest": 0.412, "share_flagged": 0.184, "n_real": 792, "mean_highest_real": 0.371}
    return {
        "classifier": "xrv-pc",
        "independent": True,
        "missing": missing,
        "labels": rows,
        "notes": [],
        "mean": mean | {"labels": 9},
        "no_finding": check | {"share_flagged_real": 0.142, "threshold": 0.5},
        "cooccurrence": {"distance": 0.0912, "floor": 0.0214, "labels": 11},
    }


def states(n: int) -> dict[str, dict[str, int]]:
    """Counts of label states that add up to n."""
    found = {}
    for label, part in zip(LABELS, SHARES, strict=True):
        present, uncertain, absent = round(part * n), round(0.04 * n), round(0.3 * n)
        rest = n - present - uncertain - absent
        found[label] = {"present": present, "absent": absent, "uncertain": uncertain, "not mentioned": rest}
    return found


def results() -> dict[str, Any]:
    """All of `results.json`."""
    sets = {
        "real": {"source": "physionet.org/mimic-cxr-jpg/2.1.0/test.csv", "n": N_REAL, "skipped": {"unreadable": 2},
                 "notes": {"16-bit film scaled to 8 bits": 31}, "repeats": 0, "patients": 1893,
                 "policy": "credentialed", "states": states(N_REAL)},
        "synthetic": {"source": "generated/with-a-rather-long-folder-name/sana-0.6b-512px", "n": N_SYNTHETIC,
                      "skipped": {"not-an-image": 1, "truncated": 3}, "notes": {}, "repeats": 4, "patients": None,
                      "policy": "open", "states": states(N_SYNTHETIC)},
    }  # fmt: skip
    stages = [("prompts", 2600, None), ("generated", 2600, 1342.26), ("judged", 2600, 61.7), ("kept", 2000, None),
              ("dataset", 2000, 1.0), ("loaded back", 2000, 0.5)]  # fmt: skip
    quality = {"High Quality": 1420, "Medium Quality": 580, "Low Quality": 500, "Not Relevant": 100}
    return {
        "schema_version": 2,
        "title": "Sana 0.6B against the MIMIC-CXR test split",
        "domain": "radiographs",
        "protocol": "default",
        "created": "2026-01-02T03:04:05+00:00",
        "command": "synthchex evaluate --real test.csv --synthetic films/ --encoder rad-dino --encoder inception "
        "--image-text medsiglip --classifier xrv-pc --out scores",
        "sets": sets,
        "join": {"by": "prompt", "joined": 1984, "only_real": 416, "only_synthetic": 16, "repeated": 12},
        "encoders": list(ENCODERS),
        "overall": overall(),
        "labels": label_rows("rad-dino", 1) + label_rows("inception", 2),
        "label_policy": {"uncertain": "ignore", "min_rows": MATCHED, "adjustment": "holm", "alpha": 0.05, "draws": 50,
                         "permutations": 999},
        "faithfulness": [faithfulness()],
        "warnings": ["FID is biased at this n: 2,000 films for 2,048 features (inception).",
                     "12 of 2,000 prompts are longer than the text tower reads (64 tokens)."],
        "methods": ["Each film was decoded once and passed once through each encoder. KID is the unbiased squared "
                    "maximum mean discrepancy with a cubic polynomial kernel (https://arxiv.org/abs/1801.01401).",
                    "Labels with fewer than 60 films on either side were not scored. p values are adjusted by Holm."],
        "citations": ["@inproceedings{binkowski2018demystifying,\n  title = {Demystifying {MMD} {GANs}},\n  author = "
                      "{Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},"
                      "\n  booktitle = {ICLR},\n  year = {2018}\n}",
                      "@inproceedings{naeem2020reliable,\n  title = {Reliable Fidelity and Diversity Metrics for "
                      "Generative Models},\n  author = {Naeem, Muhammad Ferjad and others},\n  year = {2020}\n}"],
        "versions": {"synthchex": "0.2.0", "torch": "2.6.0", "transformers": "4.57.1", "numpy": "2.2.1"},
        "config": {"seed": 0, "nearest_k": 5, "confidence_level": 0.95},
        "hashes": {"real": "9f2c" * 16, "synthetic": "17ab" * 16},
        "stages": [{"name": name, "rows": rows, "seconds": seconds, "note": None} for name, rows, seconds in stages],
        "verdicts": {"judge": "llava-rad", "calibration": "300 films read by one radiologist", "quality": quality,
                     "drop_reasons": {"low-quality": 500, "not-relevant": 100}},
    }  # fmt: skip


def images(count: int = 120, *, size: int = 224) -> ReportImages:
    """Films of the phantom in every place that shows films, and arrays of the two sets."""
    made, rng = phantom.make(count, size=size, seed=3), np.random.default_rng(0)
    films = list(zip(made.images, made.reports, strict=True))

    def some(first: int, amount: int, fact: str) -> list[tuple[np.ndarray, str]]:
        return [(films[i % count][0], f"{films[i % count][1]}\n{fact} {0.9 - i % 9 / 10:.2f}")
                for i in range(first, first + amount)]  # fmt: skip

    ranked = [Ranked(label, *(some(9 * i + 3 * j, 3, "cosine") for j in range(3))) for i, label in enumerate(LABELS)]
    real = rng.normal(size=(900, 2)) * [3, 1.6]
    synthetic = rng.normal(size=(700, 2)) * [2.2, 1.2] + [1.2, 0.4]
    return ReportImages(
        real=[(film, f"{i:05d}.png") for i, (film, _) in enumerate(films[:12])],
        kept=some(12, 24, "High Quality"),
        rejected=[(film[::-1], f"{text}\nLow Quality\nlow-quality") for film, text in films[36:44]],
        best_aligned=some(44, 6, "cosine"),
        worst_aligned=some(50, 6, "cosine"),
        ranked=ranked,
        ranked_by="cosine of image and prompt (medsiglip)",
        neighbours=[Neighbours(some(60 + i, 1, "distance")[0], some(70 + 3 * i, 3, "distance")) for i in range(4)],
        neighbours_by="Euclidean distance of rad-dino features",
        real_points=real,
        synthetic_points=synthetic,
        real_marks={row: films[i][0] for i, row in enumerate(spread_rows(real, 5))},
        synthetic_marks={row: films[20 + i][0] for i, row in enumerate(spread_rows(synthetic, 5))},
        map_of="rad-dino features on the first two principal components of the real set",
        matched=rng.normal(0.293, 0.05, 2000),
        shuffled=np.append(rng.normal(0.21, 0.05, 2000), np.nan),
        matched_real=rng.normal(0.33, 0.05, 2400),
        aligned_by="medsiglip",
    )
