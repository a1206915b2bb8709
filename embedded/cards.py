"""Model cards of the phantom models, filled from measured figures."""

from pathlib import Path

from synthchex.phantom import LABELS

_CARDS = Path(__file__).with_name("cards")


def write(assets: Path, figures: dict) -> None:
    """Write README.md into every model folder."""
    slots = {
        "encoder": _encoder(figures),
        "image_text": figures["image_text"],
        "generator": _generator(figures),
        "judge": _judge(figures),
    }
    for name, values in slots.items():
        megabytes = f"{figures['bytes'][name] / 1e6:.1f} MB"
        text = (_CARDS / f"{name}.md").read_text().format(**values, size=megabytes)
        (assets / name / "README.md").write_text(text)


def _encoder(figures: dict) -> dict:
    found = figures["encoder"]
    rows = [f"| {label} | {found['auroc'][label]:.3f} |" for label in LABELS]
    return {"mean": f"{found['mean_auroc']:.3f}", "films": found["films"], "table": "\n".join(rows)}


def _generator(figures: dict) -> dict:
    found = figures["generator"]
    columns = [found["auroc"][name] for name in ("real", "reconstruction", "synthetic")]
    rows = [
        f"| {label} | {found['positives'][label]} | " + " | ".join(f"{column[label]:.3f}" for column in columns) + " |"
        for label in LABELS
    ]
    means = " | ".join(f"{found['mean_auroc'][name]:.3f}" for name in ("real", "reconstruction", "synthetic"))
    hidden = [label for label in LABELS if label not in figures["shown_labels"]]
    return {
        "table": "\n".join([*rows, f"| **mean** | {found['prompts']} prompts | {means} |"]),
        "sides": f"{100 * found['side_accuracy']['synthetic']:.1f} % (real films "
        f"{100 * found['side_accuracy']['real']:.1f} %)",
        "psnr": found["reconstruction_psnr_db"],
        "steps": found["sampling"]["steps"],
        "guidance": found["sampling"]["guidance_scale"],
        "speed": found["sampling"]["cpu_s_per_image"],
        "hidden": ", ".join(hidden) or "none",
        "pixels": _memory(found["memorisation"]["pixels"]),
        "features": _memory(found["memorisation"]["features"]),
        "distance": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["distance"].items()),
    }


def _memory(found: dict) -> str:
    share = 100 * found["synthetic_nearer_than_1_percent_of_held_out"]
    return (
        f"median {found['synthetic_median']} (held-out films {found['held_out_median']}); "
        f"{share:.1f} % nearer than the nearest 1 % of held-out films"
    )


def _judge(figures: dict) -> dict:
    found = figures["judge"]
    rows = {**found["confusion"], **{name.replace("_", " "): found[name] for name in _SOURCES}}
    passed = found["label_agreement"]["pass"]
    return {
        "accuracy": f"{found['accuracy']:.3f}",
        "degradations": f"{found['accuracy_degradations']:.3f}",
        "table": "\n".join(
            f"| {name} | " + " | ".join(str(count) for count in row.values()) + " |" for name, row in rows.items()
        ),
        "threshold": found["label_agreement"]["threshold"],
        **{name: f"{100 * value:.1f} %" for name, value in passed.items()},
    }


_SOURCES = ("half_trained_generator", "untrained_generator", "final_generator", "reconstruction")
