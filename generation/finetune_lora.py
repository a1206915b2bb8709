"""Fine-tune a text-to-image model on films with prompts: LoRA, or all weights of the UNet or transformer.

    synthchex finetune --train-data films/ --recipe phantom-lora --out tuned
    synthchex launch --num-processes 4 finetune --train-data films/ --recipe sd21-lora --out tuned
    synthchex generate --prompts prompts.csv --recipe tuned/recipe.yaml --out made

Latents and prompt states are computed once and kept on disk, so neither autoencoder nor text encoder is in the way of
training. All that is random follows from the seed and the number of the film in the run: the same command goes on after
a kill with the same losses, and more processes take the same films with the same noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import synthchex
from synthchex import processes
from synthchex.data import recipes, records, sources
from synthchex.data.importers import policies
from synthchex.models import samplers
from synthchex.options import REFUSED, Parser, Progress, run
from synthchex.training import card, checkpoints, families, films, latents, lora, objectives, trainee, validation
from synthchex.training.recipe import Recipe, changes

ROOM = synthchex.room("generation")
MADE = {True: "pipeline", False: "lora"}  # by Recipe.full
Say = Callable[[str], None]


def parser() -> Parser:
    """The options of `synthchex finetune`."""
    options = Parser(
        command="finetune",
        description="Fine-tune a text-to-image model on films with prompts. The same command goes on after a kill.",
        examples=(
            "synthchex finetune --train-data films --recipe phantom-lora --out tuned",
            "synthchex finetune --train-data films.csv --recipe sd21-lora --out tuned --rank 16 --learning-rate 5e-5",
            "synthchex launch --num-processes 4 finetune --train-data films --recipe sana-lora --out tuned",
        ),
    )
    what = options.add_argument_group("what to train on")
    what.add_argument("--train-data", required=True, help="films with prompts: table, shards, saved dataset or Hub id")
    what.add_argument("--validation-data", help="held-out films (default: the recipe's share of --train-data)")
    what.add_argument("--recipe", required=True, help="a YAML, or the name of one in generation/configs/finetune")
    what.add_argument("--out", required=True, type=Path, help="folder to write; run again to go on")
    what.add_argument("--limit", type=int, help="use the first LIMIT films only")
    what.add_argument("--split", default="train", help="split of a saved or Hub dataset (default train)")
    what.add_argument("--image-dir", help="folder of the images of a table")
    for role in ("image", "prompt", "patient"):
        what.add_argument(f"--{role}-column", metavar="NAME", help=f"name of the {role} column")
    how = options.add_argument_group("how (not part of the result, up to rounding)")
    how.add_argument("--gradient-accumulation-steps", type=int, default=1, help="passes that a step is cut into")
    how.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    how.add_argument("--cache-dir", type=Path, help="for latents and prompt states (default OUT/cache)")
    how.add_argument("--encode-batch-size", type=int, default=8, help="films per pass of the autoencoder (default 8)")
    how.add_argument("--num-workers", type=int, default=2, help="threads that read films (default 2)")
    how.add_argument("--report-to", choices=["tensorboard"], help="tracker beside log.jsonl")
    how.add_argument("--device", help="cpu, cuda, … (default: this process's GPU, else the CPU)")
    how.add_argument("--threads", type=int, default=1, help="CPU threads per process (default 1)")
    _add_recipe(options)
    push = options.add_argument_group("push")
    push.add_argument("--push", metavar="ORG/NAME", help="send the model to the Hub when it is done; private")
    push.add_argument("--public", action="store_true", help="anyone may see it")
    push.add_argument("--source-policy", choices=card.POLICIES, help="where the films may go (default: as they say)")
    push.add_argument("--allow-public", metavar="REASON", help="why a model of such films may be public all the same")
    options.add_common()
    return options


def _add_recipe(options: Parser) -> None:
    group = options.add_argument_group("recipe changes (see docs/finetune.md)")
    for name, kind in changes():
        taken: dict[str, Any] = {"nargs": "*"} if kind is tuple else {"type": kind, "metavar": "VALUE"}
        group.add_argument(
            "--" + name.replace("_", "-"), **({"action": argparse.BooleanOptionalAction} if kind is bool else taken)
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Read, load, encode once, train from where the folder stands, save, push."""
    options = parser().parse_args(argv)
    recipe, base = read_recipes(options)
    policy = policies.stated(options.train_data, options.source_policy)
    if options.push and (why := card.refusal(policy, public=options.public, reason=options.allow_public)):
        print(f"refused: {why}", file=sys.stderr)
        return REFUSED
    train, held_out = open_films(options, recipe)
    process = processes.join(options.device, threads=options.threads)
    say: Say = (
        (lambda text: print(text, file=sys.stderr)) if process.is_main and not options.quiet else lambda text: None
    )
    check_split(recipe, process.count, options.gradient_accumulation_steps)
    describe(recipe, train, held_out, say)
    checkpoints.begin(options.out, manifest(recipe, base, train, held_out))
    if options.push and process.is_main:
        from synthchex.commands.push_metrics import check_access

        check_access(options.push.partition("/")[0])
    model = load(options, recipe, base, [side for side in (train, held_out) if side is not None], process, say)
    history = fit(model, train, held_out, options)
    if process.is_main:
        save(model, options, base, train, history, policy, held_out)
        tell(options, history, say)
    model.accelerator.end_training()
    return 0


def read_recipes(options: argparse.Namespace) -> tuple[Recipe, samplers.Recipe]:
    """The run's recipe with the changes of the command line, and that of its base at the run's size."""
    if min(options.gradient_accumulation_steps, options.encode_batch_size, options.threads) < 1:
        raise ValueError("--gradient-accumulation-steps, --encode-batch-size and --threads must be at least 1")
    changed = {name: getattr(options, name) for name, _ in changes()}
    recipe = recipes.read(recipes.find(options.recipe, ROOM / "configs" / "finetune"), Recipe, **changed)
    base = recipes.read(recipes.find(recipe.base, ROOM / "configs"), samplers.Recipe)
    if base.sampler != "diffusers":
        raise ValueError(f"base must be a recipe of a diffusers pipeline, got {recipe.base} ({base.sampler})")
    if base.lora:
        if recipe.full or (base.lora_file and not recipe.lora):
            raise ValueError(
                f"base {recipe.base} has the LoRA {base.lora}; name a base without it, or start from its file by --lora"
            )
        recipe, base = replace(recipe, lora=recipe.lora or base.lora), replace(base, lora=None)
    return recipe, replace(base, height=recipe.resolution, width=recipe.resolution)


def open_films(options: argparse.Namespace, recipe: Recipe) -> tuple[films.Side, films.Side | None]:
    """Training and held-out films that can be read and have a prompt.

    Raises:
        ValueError: no prompts, fewer films than a batch, or none held out where some are needed.
    """
    found = open_set(options.train_data, options)
    found = found.take(range(min(len(found), options.limit or len(found))))
    train, held_out = films.split(found, 0 if options.validation_data else recipe.validation_share)
    if options.validation_data:
        held_out = open_set(options.validation_data, options)
    ready = films.usable(train, recipe.resolution, num_workers=options.num_workers)
    if len(ready) < recipe.train_batch_size:
        raise ValueError(
            f"expected at least train_batch_size = {recipe.train_batch_size} films to train on, got {len(ready)} "
            f"(left out: {dict(ready.notes)}); give more films, or a smaller --train-batch-size"
        )
    if held_out is None:
        if recipe.kid_samples or recipe.validation_steps or recipe.validation_prompts:
            raise ValueError("validation needs held-out films, got none; set validation_share above 0")
        return ready, None
    kept = films.usable(held_out, recipe.resolution, num_workers=options.num_workers)
    if len(kept) < 2:
        raise ValueError(f"expected at least 2 held-out films, got {len(kept)} (left out: {dict(kept.notes)})")
    return ready, kept


def open_set(source: str, options: argparse.Namespace) -> sources.ImageSet:
    """A set of films with prompts."""
    roles = {role: getattr(options, f"{role}_column") for role in ("image", "prompt", "patient")}
    found = sources.open_images(
        source,
        columns={role: name for role, name in roles.items() if name},
        image_dir=options.image_dir,
        split=options.split,
        missing="count",
    )
    if found.prompts is None:
        raise ValueError(
            f"expected films with prompts in {source}, got none; give a table with a prompt column, or name it with "
            "--prompt-column"
        )
    return found


def check_split(recipe: Recipe, count: int, accumulation: int) -> None:
    """Every pass of every process takes equally many films."""
    if recipe.train_batch_size % (count * accumulation):
        raise ValueError(
            f"train_batch_size must be a multiple of processes x accumulation, got {recipe.train_batch_size} and "
            f"{count} x {accumulation}; change --train-batch-size or --gradient-accumulation-steps"
        )


def describe(recipe: Recipe, train: films.Side, held_out: films.Side | None, say: Say) -> None:
    """What will be trained on, and what was left out."""
    aside = f", {len(held_out)} held out" if held_out else ""
    say(f"{len(train)} films{aside}; {recipe.steps(len(train))} steps of {recipe.train_batch_size}")
    if notes := train.notes + (held_out.notes if held_out else Counter()):
        say(f"warning: films left out or enlarged: {dict(notes)}")
    if recipe.horizontal_flip:
        say("warning: horizontal_flip is on; a flipped chest is another patient, with the heart on the right")


def manifest(recipe: Recipe, base: samplers.Recipe, train: films.Side, held_out: films.Side | None) -> dict[str, Any]:
    """What makes this run this one."""
    sides = [[side.digests, list(side.prompts)] for side in (train, held_out) if side]
    return {"recipe": recipe.hashed(), "base": base.hashed(), "data": records.fingerprint(sides)}


def load(
    options: argparse.Namespace,
    recipe: Recipe,
    base: samplers.Recipe,
    sides: Sequence[films.Side],
    process: processes.Process,
    say: Say,
) -> trainee.Trainee:
    """Load the model, encode films and prompts, let go of what did that, make the rest trainable."""
    accelerator = trainee.make_accelerator(recipe, str(options.out), device=process.device, tracker=options.report_to)
    dtype = trainee.dtype_of(recipe)
    parts = {} if dtype == "float32" else base.dtypes
    base = replace(base, dtype=dtype, dtypes=parts, compile=None, offload=None)
    sampler: Any = samplers.load_sampler(base, device=process.device)
    pipeline = sampler.pipeline
    family = families.family_of(pipeline)
    objectives.check(family, pipeline.scheduler, recipe)
    if recipe.resolution % (step := families.side_step(pipeline)):
        raise ValueError(f"resolution must be a multiple of {step} for {recipe.base}, got {recipe.resolution}")
    trained = lora.prepare(pipeline, family, recipe)
    say(f"{sum(one.numel() for one in trained.values()):,} trained weights of {type(pipeline).__name__}")
    stores = encode(options, recipe, base, sampler, sides, say)
    wanted = recipe.full or recipe.kid_samples or recipe.validation_prompts
    trainee.set_aside(pipeline, family, "cpu" if wanted else None)
    if options.gradient_checkpointing:
        getattr(pipeline, family.denoiser).enable_gradient_checkpointing()
    steps = recipe.steps(len(sides[0]))
    return trainee.make(recipe, accelerator, sampler, family, trained, stores, steps=steps)


def encode(
    options: argparse.Namespace,
    recipe: Recipe,
    base: samplers.Recipe,
    sampler: Any,
    sides: Sequence[films.Side],
    say: Say,
) -> tuple[latents.Store, latents.Store]:
    """Latents of all films, by the autoencoder in float32, and states of all prompts; from the cache where they are."""
    cache, pipeline = options.cache_dir or options.out / "cache", sampler.pipeline
    prompts = list(dict.fromkeys(prompt for side in sides for prompt in side.prompts))
    cut, limit = sampler.count_truncated(prompts)
    if cut:
        say(f"warning: {cut} of {len(prompts)} prompts are longer than the {limit} tokens that are read")
    size, device = options.encode_batch_size, str(pipeline.device)
    told = latents.prompts_store(cache, pipeline, prompts, base.call, device=device, batch_size=size)
    with latents.in_float32(pipeline.vae) as vae:
        shifted = families.family_of(pipeline).flow  # pipelines of epsilon models decode without the shift
        seen = [latents.films_store(cache, vae, side, recipe, shifted=shifted, batch_size=size) for side in sides]
    return seen[-1], told


def fit(
    model: trainee.Trainee, train: films.Side, held_out: films.Side | None, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train from the last checkpoint to the last step, or until it gets no better; return the validations."""
    recipe, accelerator, out = model.recipe, model.accelerator, options.out
    first, history, real = 0, [], None
    if done := checkpoints.steps(out):
        state = checkpoints.load(out, done[-1])
        model.restore(state)
        first, history = done[-1], state["validations"]
    total = recipe.steps(len(train))
    if accelerator.is_main_process:
        checkpoints.rewind_log(out, first)
        if held_out and recipe.kid_samples and first < total:
            channels = int(model.sampler.pipeline.vae.config.in_channels)
            real = validation.real_features(held_out, recipe, channels=channels, device=str(accelerator.device))
    with Progress(
        "finetune", total, done=first, unit="steps", quiet=options.quiet or not accelerator.is_main_process
    ) as bar:
        for step in range(first, total + 1):
            if step > first:
                note(model, out, model.step(train, step, accumulation=options.gradient_accumulation_steps))
            asked = step in (0, total) or (recipe.validation_steps and step % recipe.validation_steps == 0)
            if held_out and asked and all(row["step"] < step for row in history):
                history.append(validation.validate(model, held_out, real, step, out))
                note(model, out, {"validation": True, **history[-1]})
            if step > first and (asked or step % recipe.checkpointing_steps == 0):
                keep(model, out, step, history)
            bar.advance(step)
            if validation.should_stop(history, recipe):
                break
    return history


def note(model: trainee.Trainee, out: Path, row: dict[str, Any]) -> None:
    """A line of the log, and its numbers to the tracker."""
    if model.accelerator.is_main_process:
        checkpoints.log(out, row)
    before = "validation_" if "validation" in row else ""
    numbers = {f"{before}{name}": value for name, value in row.items() if name not in ("step", "validation")}
    model.accelerator.log(numbers, step=row["step"])


def keep(model: trainee.Trainee, out: Path, step: int, history: list[dict[str, Any]]) -> None:
    """A checkpoint; the one of the best validation stays where a run may stop early."""
    if model.accelerator.is_main_process:
        recipe = model.recipe
        best = validation.best_step(history, recipe.early_stopping_metric) if recipe.early_stopping_patience else None
        state = {**model.state(), "validations": history}
        checkpoints.save(out, step, state, keep=recipe.checkpoints_total_limit, best=best)


def save(
    model: trainee.Trainee,
    options: argparse.Namespace,
    base: samplers.Recipe,
    train: films.Side,
    history: list[dict[str, Any]],
    policy: str,
    held_out: films.Side | None,
) -> None:
    """Write adapter or pipeline, the recipe that generates with it, and the card; send them where that is asked."""
    recipe, pipeline, out = model.recipe, model.sampler.pipeline, options.out
    last = checkpoints.steps(out)[-1]
    best = validation.best_step(history, recipe.early_stopping_metric) if recipe.early_stopping_patience else last
    if best and best != last:
        model.restore(checkpoints.load(out, best))
    with model.averaged():
        if recipe.full:
            pipeline.save_pretrained(out / MADE[True])
        else:
            lora.save(pipeline, model.family, out / MADE[False])
    (out / "recipe.yaml").write_text(card.generation_recipe(recipe, base, str(out.resolve() / MADE[recipe.full])))
    filled = card.slots(
        recipe,
        base,
        [(len(side), side.notes) for side in (train, held_out) if side],
        checkpoints.read_log(out),
        data=Path(options.train_data).name,
        policy=policy,
        reason=options.allow_public,
    )
    card.write(out / "README.md", ROOM / "model_card.md", filled)
    if options.push:
        url = card.push(out, options.push, card.generation_recipe(recipe, base, options.push), public=options.public)
        print(f"pushed to {url}", file=sys.stderr)


def tell(options: argparse.Namespace, history: list[dict[str, Any]], say: Say) -> None:
    """The result: last loss, validations, where it lies."""
    steps = [row for row in checkpoints.read_log(options.out) if "validation" not in row]
    if options.json:
        print(
            json.dumps(
                {"steps": len(steps), "loss": steps[-1]["loss"], "validations": history, "out": str(options.out)}
            )
        )
        return
    for row in history:
        print(", ".join(f"{name} {value:.5g}" for name, value in row.items()))
    say(f"model in {options.out}; synthchex generate --recipe {options.out / 'recipe.yaml'} makes films with it")


if __name__ == "__main__":
    sys.exit(run(main))
