"""How well images match their prompts; thin: sides and rows are synthchex.measure, maths synthchex.maths.alignment."""

import types
import typing

import numpy as np

import synthchex.maths.alignment as alignment
import synthchex.maths.intervals as intervals
import synthchex.measure as impl
import synthchex.measure.given as given
import synthchex.measure.sentences as sentences
import synthchex.measure.sides as sides

DESCRIPTION = """Cosine between images and their prompts in one embedding space, with what makes it readable: the same
under shuffled prompts, retrieval of the right prompt, the win rate over rival prompts, and the score of real pairs."""
USAGE = """
Args:
    predictions: images: folder, paths, PIL images, uint8 array, Dataset, or their embeddings, float (N, D).
    references: prompts, list of str, one per image in the same order; or their embeddings, float (N, D).
    encoder: name, Hub id, folder or object that turns images and texts into vectors of one space.
    rivals: prompts that each image should not match, one per prompt: list of str or embeddings; or "negated" for the
        opposites that `synthchex.measure.sentences.negated` makes of the prompts.
    real_images, real_prompts: real pairs, for the ceiling; embeddings are accepted too.
    per_sample: also return `alignment_per_sample`, the cosine of each image.
    per_sentence: also score each sentence of a report against its image: `alignment_sentence_mean`, the mean over
        images of their mean sentence, `alignment_sentence_min`, of their worst, `alignment_sentences`, the cosines of
        each image in the order of its sentences, and `n_sentences`. Sentences are those of
        `synthchex.measure.sentences.split`. References must be texts.
    shuffles: also return `alignment_shuffled_p` from so many random pairings.
    confidence_level: also return the ends of an interval of the mean, for example 0.95.
    n_resamples: bootstrap samples of whole patients for it, 2000 by default.
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
        {
            "rivals": None,
            "real_images": None,
            "real_prompts": None,
            "per_sample": False,
            "per_sentence": False,
            "shuffles": None,
        }
    )
    image_text = True
    resamples = True

    def _info(self) -> typing.Any:
        return impl.info(DESCRIPTION, USAGE, CITATION, ["https://arxiv.org/abs/2104.08718"])

    def sort(self, name: str, source: typing.Any) -> given.Given:
        """Images as everywhere; prompts as texts."""
        return given.sort(source, name) if name == "predictions" else given.sort_texts(source, name)

    def masks(self, groups: typing.Any, predictions: int, references: int | None) -> impl.Groups:
        """Masks of pairs; a plain mask per label is taken for both sides, labels of one side for its pairs."""
        if isinstance(groups, dict):
            groups = {label: mask if isinstance(mask, tuple) else (mask, mask) for label, mask in groups.items()}
        elif not isinstance(groups, tuple):
            groups = (groups, groups)
        found = impl.Measure.masks(self, groups, predictions, references)
        for label, (left, right) in found.items():
            if not np.array_equal(left, right):
                raise ValueError(
                    f"groups[{label!r}]: expected one mask for pairs, got different ones for the two sides"
                )
        return found

    def compute(
        self, *, predictions: typing.Any = None, references: typing.Any = None, **kwargs: typing.Any
    ) -> dict[str, typing.Any] | None:
        """Alignment over everything added and given here; `references` are the prompts of `predictions`, in order."""
        if (kwargs.get("real_images") is None) != (kwargs.get("real_prompts") is None):
            raise ValueError("expected real_images and real_prompts together, got one of them; pass both or neither")
        return impl.Measure.compute(self, predictions=predictions, references=references, **kwargs)

    def prepare(
        self, encoding: sides.Encoding, options: impl.Options, fake: sides.Side, real: sides.Side
    ) -> dict[str, typing.Any]:
        """Embed rivals, real pairs and sentences with the same encoder."""
        own = dict(options.own)
        if isinstance(own["rivals"], str):
            own["rivals"] = _negated(own["rivals"], real)
        for name in ("rivals", "real_prompts"):
            if own[name] is not None:
                own[name] = encoding.texts([given.sort_texts(own[name], name)], name)
        if own["real_images"] is not None:
            own["real_images"] = encoding.features([given.sort(own["real_images"], "real_images")], "real_images")
        if own["rivals"] is not None and len(own["rivals"]) != len(real):
            raise ValueError(f"rivals: expected {len(real)}, one per prompt, got {len(own['rivals'])}")
        if own["per_sentence"]:
            own["per_sentence"] = _sentences(encoding, real)
        return own

    def score(self, fake: sides.Side, real: sides.Side, options: impl.Options) -> dict[str, typing.Any]:
        """Mean cosine, its null, retrieval, and what was asked for beside them."""
        if fake.moments or real.moments:
            raise ValueError("alignment: expected images and prompts or their embeddings, got statistics; pass rows")
        images, texts, own = fake.features, real.features, options.own
        each = alignment.cosines(images, texts)
        result: dict[str, typing.Any] = {"alignment": float(each.mean()), "warnings": []}
        if real.texts is not None:
            result["alignment_truncated"] = real.truncated
        result |= _null(images, texts, options) | _retrieval(images, texts, real.texts)
        if own["rivals"] is not None:
            result["alignment_win_rate"] = alignment.win_rate(images, texts, own["rivals"].features)
        if own["real_images"] is not None:
            pairs = own["real_images"].features, own["real_prompts"].features
            result["alignment_ceiling"] = float(alignment.cosines(*pairs).mean())
        if own["per_sample"]:
            result["alignment_per_sample"] = each.tolist()
        if own["per_sentence"]:
            result |= _per_sentence(images, own["per_sentence"], result["warnings"])
        if options.confidence_level:
            result |= _interval(each, options)
        return result

    def label_scores(
        self, fake: sides.Side, real: sides.Side, groups: impl.Groups, options: impl.Options
    ) -> dict[str, typing.Any]:
        """`score` of the pairs of each label; the ceiling is of all real pairs and is not repeated."""
        results: dict[str, typing.Any] = {}
        for label, (mask, _) in groups.items():
            own = dict(options.own) | {"real_images": None, "real_prompts": None}
            for name in ("rivals", "per_sentence"):
                own[name] = own[name].take(mask) if own[name] else own[name]
            results |= impl.Measure.label_scores(self, fake, real, {label: (mask, mask)}, impl.replaced(options, own))
        return results


def _negated(asked: str, prompts: sides.Side) -> list[str]:
    if asked != "negated" or prompts.texts is None:
        raise ValueError(
            f"rivals: expected a list of prompts, or 'negated' beside prompts that are texts, got {asked!r}; pass texts"
        )
    return [sentences.negated(text) for text in prompts.texts]


def _sentences(encoding: sides.Encoding, prompts: sides.Side) -> sentences.Sentences:
    """Each different sentence of the prompts, embedded once; a prompt without letters is its own sentence."""
    if prompts.texts is None:
        raise ValueError("per_sentence: expected prompts as texts, got embeddings; pass references as a list of str")
    listed = [sentences.split(text) or [text] for text in prompts.texts]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for own in listed for text in own))}
    found = encoding.texts([given.sort_texts(list(places), "references")], "references")
    held = tuple(np.array([places[text] for text in own]) for own in listed)
    return sentences.Sentences(found.features, held, found.truncated)


def _per_sentence(images: np.ndarray, held: sentences.Sentences, warnings: list[str]) -> dict[str, typing.Any]:
    found = alignment.part_cosines(images, held.features, held.held)
    if held.truncated:
        warnings.append(f"{held.truncated} different sentences are longer than the encoder reads")
    return {
        "alignment_sentence_mean": float(found.mean.mean()),
        "alignment_sentence_min": float(found.least.mean()),
        "alignment_sentences": [each.tolist() for each in found.each],
        "n_sentences": sum(map(len, found.each)),
    }


def _interval(each: np.ndarray, options: impl.Options) -> dict[str, float]:
    ids = next((ids for ids in impl.patients_of(options, len(each), len(each)) if ids is not None), None)
    found = intervals.of_mean(
        each,
        clusters=ids,
        confidence=float(options.confidence_level or 0),
        resamples=options.n_resamples or 2000,
        seed=options.seed,
    )
    return impl.with_interval("alignment", found)


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
