"""Pipelines of diffusers from a recipe: whole, or assembled from pieces of several repositories. Samples nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthchex.extras import require
from synthchex.models.encoders import ASSETS, loading, pick_device
from synthchex.models.samplers.lora import add_lora
from synthchex.models.samplers.recipe import Recipe
from synthchex.models.samplers.texts import share_repeats

EMBEDDED = "embedded:"


def model_path(model: str) -> str:
    """A Hub id or folder as it is; "embedded:<name>" as the folder in the package."""
    if not model.startswith(EMBEDDED):
        return model
    folder = ASSETS / model.removeprefix(EMBEDDED)
    if not folder.is_dir():
        raise ValueError(
            "expected an embedded model of "
            f"{sorted(str(p.relative_to(ASSETS)) for p in ASSETS.glob('*/*'))}, got {model!r}"
        )
    return str(folder)


def load_pipeline(recipe: Recipe, *, device: str | None = None) -> Any:
    """The text-to-image pipeline that a recipe describes, ready on `device`.

    Raises:
        ValueError: something of it cannot be loaded, has weights missing, or an option is not one of this pipeline.
        ImportError: diffusers is not installed.
    """
    diffusers = require("diffusers", extra="generate")
    diffusers.utils.logging.disable_progress_bar()
    pipeline = _assembled(recipe, diffusers) if recipe.pipeline else _published(recipe, diffusers)
    _check_call(pipeline, recipe)
    if recipe.scheduler is not None or recipe.scheduler_config:
        kind = _class(recipe.scheduler, recipe) if recipe.scheduler else type(pipeline.scheduler)
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **recipe.scheduler_config)
    if recipe.lora is not None:
        add_lora(pipeline, recipe.lora, file=recipe.lora_file, scale=recipe.lora_scale)
    if recipe.share_prompts:
        share_repeats(pipeline)
    _speed(pipeline, recipe)
    pipeline.set_progress_bar_config(disable=True)
    return _placed(pipeline, recipe, pick_device(device))


def denoiser(pipeline: Any) -> Any:
    """The network that is called at every step."""
    return getattr(pipeline, "unet", None) or pipeline.transformer


def dtypes(recipe: Recipe) -> Any:
    """What `from_pretrained` takes as dtype."""
    import torch

    named = {part: getattr(torch, dtype) for part, dtype in recipe.dtypes.items()}
    whole = getattr(torch, recipe.dtype)
    return {**named, "default": whole} if named else whole


def _published(recipe: Recipe, diffusers: Any) -> Any:
    """A pipeline that one repository holds, with some pieces from elsewhere."""
    path = model_path(recipe.model)
    if not path:
        raise ValueError(f"recipe {recipe.name} names no model; set `model:` to a Hub id or folder")
    parts = _parts(recipe)
    with _explained(path):
        return diffusers.DiffusionPipeline.from_pretrained(
            path, revision=recipe.revision, dtype=dtypes(recipe), **parts, **recipe.load
        )


def _assembled(recipe: Recipe, diffusers: Any) -> Any:
    """A pipeline whose every piece the recipe names."""
    kind, parts = _class(recipe.pipeline, recipe), _parts(recipe)
    try:
        return kind(**parts, **recipe.load)
    except TypeError as error:
        raise ValueError(
            f"recipe {recipe.name}: {recipe.pipeline} cannot be made of {sorted(parts)}: {error}"
        ) from None


def _parts(recipe: Recipe) -> dict[str, Any]:
    return {name: _part(name, dict(said), recipe) for name, said in recipe.parts.items()}


def _part(name: str, said: dict[str, Any], recipe: Recipe) -> Any:
    """One piece; networks are checked for weights that the repository lacks, which would be random."""
    import torch

    kind, model = _class(said.pop("class", None), recipe), said.pop("model", None)
    if model is None:
        return kind(**said)
    path = model_path(model)
    with _explained(path):
        if not issubclass(kind, torch.nn.Module):
            return kind.from_pretrained(path, **said)
        dtype = getattr(torch, recipe.dtypes.get(name, recipe.dtype))
        part, told = kind.from_pretrained(path, dtype=dtype, output_loading_info=True, **said)
    if lacking := sorted(told["missing_keys"]):
        raise ValueError(
            f"{model} lacks {len(lacking)} weights of {kind.__name__} for the {name}, e.g. {lacking[0]}, "
            "which would be random; name another repository or class"
        )
    return part.eval()


def _class(name: str | None, recipe: Recipe) -> Any:
    """A class of diffusers, or of transformers."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        if name and hasattr(library, name):
            return getattr(library, name)
    what = "scheduler" if name == recipe.scheduler else "class"
    raise ValueError(f"recipe {recipe.name}: diffusers has no {what} {name!r}, e.g. DDIMScheduler")


def _check_call(pipeline: Any, recipe: Recipe) -> None:
    """Arguments that the pipeline does not take are said before anything is made."""
    valid = [name for name in inspect.signature(type(pipeline).__call__).parameters if name != "self"]
    if unknown := sorted(set(recipe.call) - set(valid)):
        raise ValueError(
            f"recipe {recipe.name}: {type(pipeline).__name__} takes no {unknown} in `call`; it takes {valid}"
        )


def _speed(pipeline: Any, recipe: Recipe) -> None:
    """Options that change how fast a pipeline is, and how much memory it takes."""
    import torch

    network = denoiser(pipeline)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if recipe.vae_slicing:
        _vae(pipeline, "enable_slicing", recipe)
    if recipe.vae_tiling:
        _vae(pipeline, "enable_tiling", recipe)
    if recipe.attention is not None:
        _set_attention(network, recipe)
    if recipe.compile is not None:
        network.compile(**recipe.compile)


def _vae(pipeline: Any, name: str, recipe: Recipe) -> None:
    if not hasattr(pipeline.vae, name):
        raise ValueError(
            f"recipe {recipe.name}: {type(pipeline.vae).__name__} has no {name}; leave out vae_{name.split('_')[1]}"
        )
    getattr(pipeline.vae, name)()


def _set_attention(network: Any, recipe: Recipe) -> None:
    """Choose the backend; a network whose attention would not hear of it is an error."""
    heard = [p for p in getattr(network, "attn_processors", {}).values() if hasattr(p, "_attention_backend")]
    if not heard:
        raise ValueError(
            f"recipe {recipe.name}: the attention of {type(network).__name__} takes no backend in this diffusers, got "
            f"attention {recipe.attention!r}; leave it out: scaled_dot_product_attention is used"
        )
    try:
        network.set_attention_backend(recipe.attention)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"recipe {recipe.name}: {error}") from error


def _placed(pipeline: Any, recipe: Recipe, device: str) -> Any:
    if recipe.offload is None:
        return pipeline.to(device)
    if device == "cpu":
        raise ValueError(f"recipe {recipe.name}: offload {recipe.offload!r} is for a GPU, got the CPU; leave it out")
    offload = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}[recipe.offload]
    getattr(pipeline, offload)(device=device)
    return pipeline


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Errors of loading, in one line."""
    try:
        with loading(path):
            yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be loaded ({str(error).splitlines()[0]}); "
            "give a Hub id you have access to, or a local folder"
        ) from error


def revision_of(pipeline: Any, recipe: Recipe) -> str:
    """Commit of a Hub model where diffusers tells it, the revision asked for otherwise."""
    said: Mapping[str, Any] = pipeline.config
    snapshot = Path(str(said.get("_name_or_path", "")))
    return snapshot.name if snapshot.parent.name == "snapshots" else recipe.revision or ""
