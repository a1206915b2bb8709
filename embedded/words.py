"""The phantom's CLIP tokenizer: one token for each word of the grammar, and <unk> for every other word."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from synthchex.phantom import vocabulary

LENGTH = 40


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with CLIP's begin and end signs; texts are padded to `LENGTH` tokens."""
    # The end sign must not be number 2: CLIP takes that for an old configuration and pools at the wrong word.
    special = ["<pad>", "<unk>", "<|startoftext|>", "<|endoftext|>"]
    table = {word: index for index, word in enumerate([*special, *vocabulary()])}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    core.decoder = decoders.WordPiece()
    begin, end = table["<|startoftext|>"], table["<|endoftext|>"]
    core.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", begin), ("<|endoftext|>", end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Token numbers, padded to the full length; a report that does not fit is an error."""
    batch = tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="pt")
    if batch.input_ids.shape[1] > LENGTH:
        raise ValueError(f"a report has {batch.input_ids.shape[1]} tokens, more than {LENGTH}; raise LENGTH")
    return batch.input_ids
