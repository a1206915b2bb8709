"""Tiny random-weight vision-language models of the classes that judges load, with character tokenizers, 28 px films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {**SMALL, "num_key_value_heads": 1, "max_position_embeddings": 2048}
TEMPLATE = (
    "{% for m in messages %}USER:{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE\n{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}\n{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """One token per byte, so that answers are many tokens long and read back as they were written."""
    words = ["<unk>", "<s>", "</s>", "<pad>", *special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=named or list(special),
    )  # fmt: skip


def saved(folder: Path, model: Any, *, spread: float = 6.0) -> None:
    """Save a model; a wide spread of its answers' logits, so that verdicts differ from film to film."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(spread)
    model.save_pretrained(folder)


def llava(folder: Path, *, text: str = "llama") -> Path:
    """A LLaVA with a Llama or a Phi-3, 16 image tokens."""
    torch.manual_seed(0)
    words = tokenizer("<image>")
    kinds = {"llama": transformers.LlamaConfig, "phi3": transformers.Phi3Config}
    ends = {"vocab_size": len(words), "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=28, patch_size=7, **SMALL),
        text_config=kinds[text](**TEXT, **ends),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    saved(folder, transformers.LlavaForConditionalGeneration(config))
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    films = LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    transformers.LlavaProcessor(
        films, words, patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)  # fmt: skip
    return folder


QWEN_TOKENS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
QWEN_TEXT = {**TEXT, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
QWEN_SIGHT = {
    "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 7, "spatial_merge_size": 2,
    "temporal_patch_size": 2, "out_hidden_size": 32,
}  # fmt: skip


def qwen2_5(folder: Path) -> Path:
    """A Qwen2.5-VL as Lingshu is one."""
    torch.manual_seed(0)
    words = tokenizer(*QWEN_TOKENS)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**QWEN_TEXT, "vocab_size": len(words), "rope_parameters": rope},
        vision_config={**QWEN_SIGHT, "window_size": 28, "fullatt_block_indexes": [1]},
        **qwen_ids(words),
    )
    saved(folder, transformers.Qwen2_5_VLForConditionalGeneration(config))
    return with_qwen_processor(folder, words)


def qwen3(folder: Path) -> Path:
    """A Qwen3-VL as HealthGPT-Pro is one."""
    torch.manual_seed(0)
    words = tokenizer(*QWEN_TOKENS)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4, "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config={**QWEN_TEXT, "vocab_size": len(words), "rope_parameters": rope, "head_dim": 16},
        vision_config={**QWEN_SIGHT, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        **qwen_ids(words),
    )
    saved(folder, transformers.Qwen3VLForConditionalGeneration(config))
    return with_qwen_processor(folder, words)


def qwen_ids(words: PreTrainedTokenizerFast) -> dict[str, int]:
    """The ids of Qwen's own tokens."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(names, words.convert_tokens_to_ids(QWEN_TOKENS), strict=True))


def with_qwen_processor(folder: Path, words: PreTrainedTokenizerFast) -> Path:
    """The files of an image processor and a tokenizer, as published; the class also wants a video processor."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    Qwen2VLImageProcessorPil(patch_size=7, merge_size=2, temporal_patch_size=2, size=size).save_pretrained(folder)
    words.chat_template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    words.save_pretrained(folder)
    return folder


def gemma3(folder: Path) -> Path:
    """A Gemma 3 with sliding and full attention, as MedGemma has; 4 image tokens."""
    torch.manual_seed(0)
    names = ["<start_of_image>", "<image_soft_token>", "<end_of_image>"]
    words = tokenizer(*names, **dict(zip(("boi_token", "image_token", "eoi_token"), names, strict=True)))
    ids = dict(zip(("boi_token_id", "image_token_id", "eoi_token_id"), words.convert_tokens_to_ids(names), strict=True))
    config = transformers.Gemma3Config(
        text_config={**TEXT, "vocab_size": len(words), "head_dim": 16, "sliding_window": 64, "pad_token_id": 3,
                     "layer_types": ["sliding_attention", "full_attention"], "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**SMALL, "image_size": 28, "patch_size": 7},
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token_id"],
        eoi_token_index=ids["eoi_token_id"],
        image_token_index=ids["image_token_id"],
    )  # fmt: skip
    saved(folder, transformers.Gemma3ForConditionalGeneration(config))
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    films = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    transformers.Gemma3Processor(
        films, words, image_seq_length=4, chat_template="<s>" + TEMPLATE.replace("IMAGE", "<start_of_image>")
    ).save_pretrained(folder)
    return folder


def idefics3(folder: Path) -> Path:
    """An Idefics3, one 28 px tile of 4 image tokens."""
    torch.manual_seed(0)
    names = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    words = tokenizer(*names)
    config = transformers.Idefics3Config(
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(words), "pad_token_id": 3, "bos_token_id": 1,
                     "eos_token_id": 2},
        vision_config={**SMALL, "image_size": 28, "patch_size": 7},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=3,
    )  # fmt: skip
    saved(folder, transformers.Idefics3ForConditionalGeneration(config))
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    films = Idefics3ImageProcessorPil(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    transformers.Idefics3Processor(
        films, words, image_seq_len=4, chat_template=TEMPLATE.replace("IMAGE", "<image>")
    ).save_pretrained(folder)
    return folder


MODELS = {"llava": llava, "qwen2_5_vl": qwen2_5, "qwen3_vl": qwen3, "gemma3": gemma3, "idefics3": idefics3}
