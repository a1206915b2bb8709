"""Inception score of synthetic images; thin: sides and rows are synthchex.measure.solo, maths
synthchex.maths.inception.
"""

import dataclasses
import types
import typing

import synthchex.maths.inception as inception
import synthchex.maths.intervals as intervals
import synthchex.measure as measure
import synthchex.measure.sides as sides
import synthchex.measure.solo as impl

DESCRIPTION = """How sure an ImageNet classifier is of each image and how many classes it finds in all: 1 to the number
of classes, higher is better. From `logits_unbiased` of the 2015 Inception, as published. Needs no references."""
USAGE = """
Args:
    predictions: logits, float (N, 1008), as an array, .npz, .safetensors; or images in any form, with an encoder that
        has `.logits`.
    references: the same for real images; optional, scored beside as `inception_score_references`.
    encoder: name, or an object whose `logits(films, batch_size=...)` gives (N, classes).
    splits: parts whose scores are averaged, 10 by default as published.
    shuffle: put rows in random order before they are split.
    classes: columns that logits must have, 1008 by default; set it to use another classifier.
    confidence_level: also return the ends of a jackknife interval, for example 0.95.
    n_resamples: groups that are left out in turn for it, 20 by default.
    groups: {label: mask}, or labels of one or both sides, for the same numbers per label.
    patients: (ids of predictions or None, ids of references or None), left out together in the interval.
    seed: of the order; 2020 is torch-fidelity's.
Returns:
    `inception_score`, `inception_score_std` over splits, n_predictions, n_references, encoder, warnings; `labels` when
    groups are given.
"""
CITATION = """@inproceedings{salimans2016improved,
  title={Improved Techniques for Training {GAN}s},
  author={Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and Chen, Xi},
  booktitle={Advances in Neural Information Processing Systems}, year={2016}}"""


class Logits:
    """An encoder whose `encode` is another one's `logits`."""

    def __init__(self, model: typing.Any, name: str) -> None:
        if not hasattr(model, "logits"):
            raise ValueError(
                f"expected an encoder with `.logits`, got {name!r}, which has features only; pass encoder='inception', "
                "or logits of shape (N, 1008) as predictions"
            )
        key = getattr(model, "key", None)
        self.encode, self.name, self.key = model.logits, name, None if key is None else f"{key}-logits"


class InceptionScore(impl.Solo):
    """Inception score; see the card."""

    options = types.MappingProxyType({"splits": 10, "shuffle": True, "classes": inception.CLASSES, "seed": 2020})
    resamples = True
    default_encoder = "inception"

    def _info(self) -> typing.Any:
        return measure.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/1606.03498"])

    def fewest(self, options: measure.Options) -> int:
        """One image per split."""
        return int(options.own["splits"])

    def side(
        self, encoding: sides.Encoding, parts: typing.Sequence[typing.Any], name: str, options: measure.Options
    ) -> sides.Side:
        """Logits of one side, given or made by the encoder."""
        if any(part.kind == "films" for part in parts):
            found = _logits(encoding, parts, name)
        else:
            found = impl.Solo.side(self, encoding, parts, name, options)
        width, classes = found.features.shape[1], options.own["classes"]
        inception.check_logits(found.features)
        if width != classes:
            raise ValueError(
                f"{name}: expected logits of {classes} classes, got {width}; pass 'logits_unbiased' of Inception, or "
                f"classes={width} for another classifier, whose scores compare only with its own"
            )
        return found

    def alone(self, side: sides.Side, options: measure.Options) -> dict[str, typing.Any]:
        """Mean and spread over splits, and an interval when asked."""
        own = options.own
        each = inception.inception_scores(side.features, splits=own["splits"], shuffle=own["shuffle"], seed=own["seed"])
        result: dict[str, typing.Any] = {
            "inception_score": float(each.mean()),
            "inception_score_std": float(each.std()),
        }
        result["warnings"] = _doubts(side, options)
        if options.confidence_level:
            _interval(result, side, options)
        return result


def _logits(encoding: sides.Encoding, parts: typing.Sequence[typing.Any], name: str) -> sides.Side:
    """Logits of films: from the features where the encoder can, which other metrics may have asked for already."""
    model = encoding.model()
    if not hasattr(model, "logits_of"):
        label = encoding.encoder if isinstance(encoding.encoder, str) else str(getattr(model, "name", "unnamed"))
        return dataclasses.replace(encoding, encoder=Logits(model, label)).features(parts, name)
    found = encoding.features(parts, name)
    return dataclasses.replace(found, features=model.logits_of(found.features), key=f"{found.key}-logits")


def _doubts(side: sides.Side, options: measure.Options) -> list[str]:
    rows, classes = len(side) // options.own["splits"], side.features.shape[1]
    few = [f"{rows} rows per split for {classes} classes: the score grows with that number; compare at equal numbers"]
    other = [f"{classes} classes: not comparable with published scores, which are of {inception.CLASSES}"]
    return (few if rows < 5 * classes else []) + (other if classes != inception.CLASSES else [])


def _interval(result: dict[str, typing.Any], side: sides.Side, options: measure.Options) -> None:
    ids = None if options.patients is None else options.patients[0]
    level, name, groups = float(options.confidence_level or 0), "inception_score", options.n_resamples
    blocks = intervals.assign_blocks(
        len(side), ids, blocks=groups or intervals.BLOCKS, seed=options.seed, name="predictions"
    )
    found = inception.inception_interval(side.features, blocks, value=result[name], confidence=level)
    result |= measure.with_interval(name, found)
