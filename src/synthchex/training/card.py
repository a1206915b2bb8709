"""What goes with a fine-tuned model: the recipe that generates with it, its card, and who may see it.

Nothing is written that was not measured or given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from synthchex.data import datacard
from synthchex.models.samplers import Recipe as Base
from synthchex.training.recipe import Recipe

POLICIES = ("credentialed", "unknown", "open")
COLUMNS = ("step", "loss", "kid", "kid_standard_error", "fid")


def refusal(policy: str, *, public: bool, reason: str | None) -> str | None:
    """Why a model trained on such films may not be public; None where it may.

    A model remembers films. So one of a credentialed or unknown source stays private, but for a reason that somebody
    gives and the card repeats.
    """
    if not public or policy == "open" or reason:
        return None
    return (
        f"the training films are {policy}, so the model may be pushed as private only; leave out --public, say "
        "--source-policy open if that is true, or give --allow-public REASON, which stands in the card"
    )


def generation_recipe(recipe: Recipe, base: Base, place: str) -> str:
    """A YAML of `synthchex generate` for the trained model.

    Args:
        place: folder or repository of the adapter, or of the pipeline where all weights were trained.
    """
    import yaml

    known = {one.name: one.default for one in fields(Base)}
    said = asdict(base) | {"name": recipe.name, "source": f"synthchex finetune from {recipe.base}"}
    if recipe.full:
        said |= {"model": place, "revision": None, "pipeline": None, "parts": {}}
    else:
        said |= {"lora": place}
    kept = {name: value for name, value in said.items() if value != known[name] and value not in ({}, None)}
    return str(yaml.safe_dump(kept, sort_keys=False))


def slots(
    recipe: Recipe,
    base: Base,
    sides: Sequence[tuple[int, Mapping[str, int]]],
    log: Sequence[Mapping[str, Any]],
    *,
    data: str,
    policy: str,
    reason: str | None,
) -> dict[str, Any]:
    """What the template `model_card.md` asks for.

    Args:
        sides: number of films and what was left out, of training and of the held-out split where there is one.
        log: lines of log.jsonl.
    """
    import yaml
    from huggingface_hub import ModelCardData

    taken = [row for row in log if "validation" not in row]
    validations = [row for row in log if "validation" in row]
    on_hub = not Path(base.model).exists() and base.model.count("/") == 1 and ":" not in base.model
    header = ModelCardData(
        base_model=base.model if on_hub else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["chest-x-ray", "synthetic-data", "full" if recipe.full else "lora"],
    )
    return {
        "header": header.to_yaml(),
        "title": recipe.name,
        "kind": "All weights" if recipe.full else f"A LoRA of rank {recipe.rank}",
        "base": base.model or recipe.base,
        "films": sides[0][0],
        "held_out": sides[1][0] if sides[1:] else "none",
        "left_out": ", ".join(f"{name} {count}" for _, notes in sides for name, count in notes.items()) or "nothing",
        "data": data,
        "policy": policy,
        "reason": reason,
        "steps": len(taken),
        "batch": recipe.train_batch_size,
        "loss": _cell(sum(row["loss"] for row in taken[-100:]) / len(taken[-100:])),
        "validations": _table(validations),
        "kid_samples": recipe.kid_samples,
        "encoder": recipe.kid_encoder,
        "recipe": yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False).strip(),
    }


def write(path: Path, template: Path, filled: Mapping[str, Any]) -> None:
    """Write the card."""
    path.write_text(datacard.fill(template, filled))


def _plain(said: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with the columns that any row has; empty without rows."""
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines) if rows else ""


def _cell(value: Any) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.5g}"


def push(folder: Path, repo: str, recipe: str, *, public: bool) -> str:
    """Send the model to the Hub in one commit, private unless asked; the address of the commit.

    Args:
        folder: what a run wrote; adapter or pipeline go to the top of the repository.
        recipe: the `recipe.yaml` that names the repository.

    Raises:
        ValueError: the repository is public and was not to be, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    files: dict[str, Path | bytes] = {"recipe.yaml": recipe.encode()}
    for part in ("lora", "pipeline"):
        there = [path for path in sorted((folder / part).rglob("*")) if path.is_file()]
        files |= {str(path.relative_to(folder / part)): path for path in there}
    for path in [folder / "README.md", folder / "log.jsonl", *sorted((folder / "validation").glob("*.png"))]:
        files[str(path.relative_to(folder))] = path
    api = HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.model_info(repo).private:
            raise ValueError(f"{repo} is public and was to be private; make it private on the Hub, or pass --public")
        added = [CommitOperationAdd(name, content) for name, content in files.items()]
        sent = api.create_commit(repo, added, commit_message="Fine-tuned with synthchex")
    except HfHubHTTPError as error:
        raise ValueError(
            f"{repo} cannot be pushed to ({str(error).splitlines()[0]}); see your token's rights"
        ) from error
    return str(sent.commit_url)
