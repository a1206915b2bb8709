"""Tiny random-weight networks of the real classes, saved in the published layouts. No network, no trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil


def dino(folder: Path) -> Path:
    """A DINOv2 with the processor that RAD-DINO has: shorter edge, then centre crop, 56 px."""
    torch.manual_seed(0)
    config = Dinov2Config(image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    Dinov2Model(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    BitImageProcessorPil(**size, image_mean=[0.53] * 3, image_std=[0.26] * 3).save_pretrained(folder)
    return folder


def vit_classifier(folder: Path, labels: list[str], *, seed: int = 0) -> Path:
    """A ViT image classifier, 32 px RGB."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    config = ViTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label=names, label2id={label: index for index, label in names.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """A character tokenizer of CLIP's class, 16 tokens long."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=16)


def clip(folder: Path) -> Path:
    """A CLIP model with its processor, 32 px RGB."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder)
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ends = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    config = CLIPConfig(
        text_config={**text, **ends, "max_position_embeddings": 16},
        vision_config={**text, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def llava(folder: Path, *, letters: bool = True) -> Path:
    """A Llava vision-language model with its processor and chat template, 28 px; without `letters` it has no token for
    A to D.
    """
    torch.manual_seed(0)
    words = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "USER", "ASSISTANT", ":", *("ABCD" if letters else "")]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=7, **small),
        text_config=LlamaConfig(vocab_size=len(fast), **small),
        image_token_id=4,
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    template = (
        "{% for m in messages %}USER : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT :"
    )
    processor = LlavaProcessor(
        images,
        fast,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    processor.save_pretrained(folder)
    return folder


def stable_diffusion(folder: Path) -> Path:
    """A Stable Diffusion pipeline, 16 px RGB, 4 latent channels."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder.with_name(folder.name + "-tokenizer"))
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **small)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                                  up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                                  cross_attention_dim=32, attention_head_dim=4),
        scheduler=DDIMScheduler(num_train_timesteps=100, steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder
