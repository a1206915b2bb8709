"""Tiny random-weight text-to-image pipelines of the classes that the recipes name, saved in the published layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

sys.path.insert(0, str(Path(__file__).parent))
import tiny

WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghij", "edema", "effusion", "lungs", "clear"]


def words(limit: int = 64) -> PreTrainedTokenizerFast:
    """A word tokenizer with an end token, as T5 and Gemma have one."""
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=limit
    )


def t5(width: int = 32) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def gemma(width: int = 8) -> Gemma2Model:
    return Gemma2Model(Gemma2Config(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    ))  # fmt: skip


def clip_text(kind: Any, folder: Path, width: int) -> tuple[Any, Any]:
    tokenizer = tiny.clip_tokenizer(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, projection_dim=width, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return kind(config), tokenizer


def vae(channels: int, *, blocks: int = 2) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        shift_factor=0.06,
        scaling_factor=1.5,
    )


def sd3(folder: Path) -> Path:
    """Stable Diffusion 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    one, tokenizer = clip_text(CLIPTextModelWithProjection, folder.with_name("sd3-words"), 16)
    two, other = clip_text(CLIPTextModelWithProjection, folder.with_name("sd3-words"), 16)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=4,
            pos_embed_max_size=16),
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(4), text_encoder=one, tokenizer=tokenizer,
        text_encoder_2=two, tokenizer_2=other, text_encoder_3=t5(), tokenizer_3=words(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux(folder: Path) -> Path:
    """Flux.1-dev: guidance is given to the network."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    one, tokenizer = clip_text(CLIPTextModel, folder.with_name("flux-words"), 32)
    FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
            guidance_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(1), text_encoder=one, tokenizer=tokenizer,
        text_encoder_2=t5(), tokenizer_2=words(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def pixart(folder: Path) -> Path:
    """PixArt-Sigma."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(0)
    PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=32,
            in_channels=4, cross_attention_dim=16, out_channels=8, num_embeds_ada_norm=1000,
            norm_type="ada_norm_single", norm_elementwise_affine=False),
        scheduler=DPMSolverMultistepScheduler(), vae=vae(4), text_encoder=t5(), tokenizer=words(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def sana(folder: Path) -> Path:
    """Sana 0.6B: linear attention, a deep-compression autoencoder, Gemma 2."""
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    torch.manual_seed(0)
    blocks, scales = ("ResBlock", "EfficientViTBlock"), ((), (5,))
    SanaPipeline(
        transformer=SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
            sample_size=32),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=AutoencoderDC(
            latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales, encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
            downsample_block_type="conv", upsample_block_type="interpolate", scaling_factor=0.41407),
        text_encoder=gemma(), tokenizer=words(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def lumina2(folder: Path) -> Path:
    """Lumina Image 2.0."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    torch.manual_seed(0)
    Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=2, num_attention_heads=1,
            num_kv_heads=1, multiple_of=16, norm_eps=1e-5, scaling_factor=1.0, axes_dim_rope=(4, 2, 2), cap_feat_dim=8),
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(4, blocks=4), text_encoder=gemma(), tokenizer=words(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def radedit(folder: Path) -> Path:
    """RadEdit's three repositories, as folders unet/, vae/ and text/ of one."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).save_pretrained(folder / "radedit" / "unet")  # fmt: skip
    vae(4).save_pretrained(folder / "vae")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "text")
    words(128).save_pretrained(folder / "text")
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "stable-diffusion-2-1": tiny.stable_diffusion,
    "stable-diffusion-3-5-medium": sd3,
    "sana": sana,
    "pixart-sigma": pixart,
    "flux-1-dev": flux,
    "lumina-2": lumina2,
}
