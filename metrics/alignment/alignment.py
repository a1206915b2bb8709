"""How well images match their prompts; thin: sides and rows are synthchex.measure, maths synthchex.maths.alignment."""

import types
import typing

import numpy as np

import synthchex.maths.alignment as alignment
import synthchex.maths.intervals as intervals
import synthchex.measure as impl
import synthchex.measure.given as given
import synthchex.measure.sides as sides

DESCRIPTION = """Cosine between images and their prompts in one embedding space, with what makes it readable: the same
under shuffled prompts, retrieval of the right prompt, the win rate over rival prompts, and the score of real pairs."""
USAGE = """
Args:
    predictions: images: folder, paths, PIL images, uint8 array, Dataset, or their embeddings, float (N, D).
    references: prompts, list of str, one per image in the same order; or their embeddings, float (N, D).
    encoder: name, Hub id, folder or object that turns images and texts into vectors of one space.
    rivals: prompts that each image should not match, for example the negated ones: list of str or embeddings.
    real_images, real_prompts: real pairs, for the ceiling; embeddings are accepted too.
    per_sample: also return `alignment_per_sample`, the cosine of each image.
    shuffles: also return `alignment_shuffled_p` from so many random pairings.
    confidence_level: also return the ends of an interval of the mean, for example 0.95.
    groups: {label: mask} over the pairs, or (labels, labels), for the same numbers per label.
    patients: (ids or None, ids or None): independent units of the interval; the first that is given counts.
    seed: of the bootstrap and the shuffles.
Returns:
    `alignment`, null, retrieval and what was asked for, n_predictions, n_references, encoder, warnings.
"""
CITATION = """@inproceedings{hessel2021clipscore,
  title={{CLIPScore}: A Reference-free Evaluation Metric for Image Captioning},
  author={Hessel, Jack and Holtzman, Ari and Forbes, Maxwell and Le Bras, Ronan and Choi, Yejin},
  booktitle={Empirical Methods in Natural Language Processing}, year={2021}}"""


class Alignment(impl.Measure):
    """Image-text alignment; see the card."""

    options = types.MappingProxyType(
        {"rivals": None, "real_images": None, "real_prompts": None, "per_sample": False, "shuffles": None}
    )
    image_text = True

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2104.08718"])

    def sort(self, name: str, source: typing.Any) -> given.Given:
        """Images as everywhere; prompts as texts."""
        return given.sort(source, name) if name == "predictions" else given.sort_texts(source, name)

    def compute(
        self, *, predictions: typing.Any = None, references: typing.Any = None, **kwargs: typing.Any
    ) -> dict[str, typing.Any] | None:
        """Alignment over everything added and given here; a plain mask per label is taken for both sides."""
        groups = kwargs.get("groups")
        if isinstance(groups, dict):
            kwargs["groups"] = {key: mask if isinstance(mask, tuple) else (mask, mask) for key, mask in groups.items()}
        return impl.Measure.compute(self, predictions=predictions, references=references, **kwargs)

    def prepare(self, encoding: sides.Encoding, options: impl.Options) -> dict[str, typing.Any]:
        """Embed rivals and real pairs with the same encoder."""
        own = dict(options.own)
        if (own["real_images"] is None) != (own["real_prompts"] is None):
            raise ValueError("expected real_images and real_prompts together, got one of them; pass both or neither")
        for name in ("rivals", "real_prompts"):
            if own[name] is not None:
                own[name] = encoding.texts([given.sort_texts(own[name], name)], name)
        if own["real_images"] is not None:
            own["real_images"] = encoding.features([given.sort(own["real_images"], "real_images")], "real_images")
        return own

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Mean cosine, its null, retrieval, and what was asked for beside them."""
        images, texts = fake.features, real.features
        each = alignment.cosines(images, texts)
        result: dict[str, typing.Any] = {"alignment": float(each.mean()), "warnings": []}
        if real.texts is not None:
            result["alignment_truncated"] = real.truncated
        result |= _null(images, texts, options) | _retrieval(images, texts, real.texts)
        if options.own["rivals"] is not None:
            result["alignment_win_rate"] = alignment.win_rate(images, texts, options.own["rivals"].features)
        if options.own["real_images"] is not None:
            pairs = options.own["real_images"].features, options.own["real_prompts"].features
            result["alignment_ceiling"] = float(alignment.cosines(*pairs).mean())
        if options.own["per_sample"]:
            result["alignment_per_sample"] = each.tolist()
        if options.confidence_level:
            ids = next((ids for ids in impl.patients_of(options, len(fake), len(real)) if ids is not None), None)
            found = intervals.of_mean(each, clusters=ids, confidence=options.confidence_level, seed=options.seed)
            result |= impl.with_interval("alignment", found)
        return result

    def label_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> dict[str, typing.Any]:
        """`score` of the pairs of each label."""
        for label, (left, right) in groups.items():
            if not np.array_equal(left, right):
                raise ValueError(
                    f"groups[{label!r}]: expected one mask for pairs, got different ones for the two sides"
                )
        results: dict[str, typing.Any] = {}
        for label, (mask, _) in groups.items():
            own = dict(options.own) | {"real_images": None, "real_prompts": None}
            if own["rivals"] is not None:
                own["rivals"] = own["rivals"].take(mask)
            part = impl.Measure.label_scores(self, fake, real, {label: (mask, mask)}, impl.replaced(options, own))
            results |= part
        return results


def _null(images: np.ndarray, texts: np.ndarray, options: impl.Options) -> dict[str, float]:
    found = alignment.shuffled_null(images, texts)
    result: dict[str, float] = {
        "alignment_shuffled_mean": found.mean,
        "alignment_shuffled_std": found.deviation,
        "alignment_z": found.z,
    }
    if options.own["shuffles"]:
        shuffles = options.own["shuffles"]
        result["alignment_shuffled_p"] = alignment.shuffled_p(images, texts, shuffles=shuffles, seed=options.seed)
    return result


def _retrieval(images: np.ndarray, texts: np.ndarray, prompts: tuple[str, ...] | None) -> dict[str, float]:
    to_text, to_image = alignment.retrieval_ranks(images, texts, prompts)
    result: dict[str, float] = {"n_distinct_prompts": len(to_image)}
    for k in (1, 5, 10):
        result[f"alignment_image_to_text_r{k}"] = alignment.recall_at(to_text, k)
        result[f"alignment_text_to_image_r{k}"] = alignment.recall_at(to_image, k)
    return result
