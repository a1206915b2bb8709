"""Train the phantom text-to-image pipeline: autoencoder, text encoder, then the denoiser in its latent space.

    python embedded/train_generator.py vae  --out src/synthchex/assets/phantom/generator
    python embedded/train_generator.py text --out src/synthchex/assets/phantom/generator
    python embedded/train_generator.py unet --out src/synthchex/assets/phantom/generator

Every stage goes on from its checkpoint. The autoencoder needs the trained encoder (for its perceptual loss), the
denoiser needs the other two. `vae --decoder-only` goes on polishing the decoder while the denoiser already trains.
"""

import argparse
import copy
from pathlib import Path

import common
import torch
import words
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, ResNetForImageClassification

LATENT_SIZE = 16
TEXT_WIDTH = 128
NO_PROMPT = 0.1


def main() -> None:
    """Run one stage."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    {"vae": train_vae, "text": train_text, "unet": train_unet}[args.stage](args)


def build_vae() -> AutoencoderKL:
    """Four times smaller latents with four channels; no residual blocks on the way down keep it cheap."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 32),
        layers_per_block=0,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        scaling_factor=1.0,
    )


def train_vae(args: argparse.Namespace) -> None:
    """Pixels, their gradients, and the features of the label classifier; a very small KL term."""
    films = common.load_training()
    judge = ResNetForImageClassification.from_pretrained(args.out.parent / "encoder", dtype=torch.float32)
    judge.eval().requires_grad_(False)
    vae = build_vae().to(memory_format=torch.channels_last)
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    rows = common.batches(len(films.pictures), args.batch, args.seed)

    def loss(step: int) -> torch.Tensor:
        """Reconstruction and perceptual loss of one batch."""
        real = films.pictures[next(rows)].contiguous(memory_format=torch.channels_last)
        code = vae.encode(real).latent_dist
        fake = vae.decode(code.sample()).sample
        pixels = (fake - real).abs().mean() + 2 * (_edges(fake) - _edges(real)).abs().mean()
        return pixels + args.perceptual * _distance(judge, fake, real) + 2e-7 * code.kl().mean()

    def save(average: nn.Module, step: int) -> None:
        """Write the autoencoder with latents of unit variance."""
        common.save_half(_whitened(average, films.pictures[:1024]), args.out / "vae")

    name = "decoder" if args.decoder_only else "vae"
    checkpoint = common.CACHE / f"{name}.pt"
    if args.decoder_only and not checkpoint.exists():
        vae.load_state_dict(torch.load(common.CACHE / "vae.pt", weights_only=True)["average"])
    average = common.train(
        vae, loss, steps=args.steps, peak=args.peak, checkpoint=checkpoint, ema=0.99, save=save, every=args.every
    )
    save(average, args.steps)


def train_text(args: argparse.Namespace) -> None:
    """Teach the text encoder to read every attribute of a report; afterwards it stays fixed."""
    films = common.load_training()
    tokenizer = words.build_tokenizer()
    tokenizer.save_pretrained(args.out / "tokenizer")
    ids = words.encode(tokenizer, films.reports)
    encoder = build_text_encoder(tokenizer)
    head = nn.Linear(2 * TEXT_WIDTH, films.attributes.shape[1])
    both = nn.ModuleDict({"encoder": encoder, "head": head})
    rows = common.batches(len(ids), args.batch, args.seed)

    def loss(step: int) -> torch.Tensor:
        """Attributes from the mean of the words and from the end of the text."""
        pick = next(rows)
        out = encoder(input_ids=ids[pick])
        state = torch.cat([out.last_hidden_state.mean(1), out.pooler_output], 1)
        return nn.functional.binary_cross_entropy_with_logits(head(state), films.attributes[pick])

    def save(average: nn.Module, step: int) -> None:
        """Write the encoder and its tokenizer."""
        common.save_half(average["encoder"], args.out / "text_encoder")
        common.tidy(args.out)

    checkpoint = common.CACHE / "text.pt"
    common.train(
        both, loss, steps=args.steps, peak=args.peak, checkpoint=checkpoint, ema=0.99, save=save, every=args.every
    )


def build_text_encoder(tokenizer: "object") -> CLIPTextModel:
    """Two causal layers, as in every CLIP text tower."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=words.LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """A thin denoiser that reads the prompt by cross-attention and, pooled, beside the time step."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build_scheduler() -> DDIMScheduler:
    """Velocity prediction with zero terminal signal-to-noise ratio."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def train_unet(args: argparse.Namespace) -> None:
    """Denoise latents computed once, given prompts encoded once."""
    ready = common.CACHE / "latents.pt"  # delete it when the autoencoder's encoder or the text encoder changes
    if not ready.exists():
        torch.save(precompute(args.out), ready)
    latents, states, empty = torch.load(ready, weights_only=True)
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod
    unet = build_unet().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters", flush=True)
    rows = common.batches(len(latents), args.batch, args.seed)

    def loss(step: int) -> torch.Tensor:
        """Velocity error, uniform over time; one prompt in ten is dropped."""
        pick = next(rows)
        clean, state = latents[pick], states[pick].clone()
        state[torch.rand(len(pick)) < NO_PROMPT] = empty
        time = torch.randint(0, 1000, (len(pick),))
        noise = torch.randn_like(clean)
        keep = signal[time].sqrt()[:, None, None, None]
        lose = (1 - signal[time]).sqrt()[:, None, None, None]
        noisy = (keep * clean + lose * noise).contiguous(memory_format=torch.channels_last)
        return nn.functional.mse_loss(unet(noisy, time, state).sample, keep * noise - lose * clean)

    def save(average: nn.Module, step: int) -> None:
        """Write the denoiser, and a numbered copy outside the assets for the judge's training."""
        common.save_half(average, args.out / "unet")
        common.save_half(average, common.CACHE / "unets" / f"{step:06d}")

    average = common.train(
        unet,
        loss,
        steps=args.steps,
        peak=args.peak,
        checkpoint=common.CACHE / f"unet{args.tag}.pt",
        ema=0.999,
        save=save,
        every=args.every,
    )
    assemble(args.out, average)


@torch.no_grad()
def precompute(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled latents and prompt states of all training films, and the state of the empty prompt."""
    films = common.load_training()
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval()
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    tokenizer = words.build_tokenizer()
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in films.pictures.split(128)])
    ids = words.encode(tokenizer, [*films.reports, ""])
    states = torch.cat([encoder(input_ids=part).last_hidden_state for part in ids.split(512)])
    return latents * vae.config.scaling_factor, states[:-1], states[-1]


def assemble(folder: Path, unet: UNet2DConditionModel) -> None:
    """Write the whole pipeline folder in fp16 from its trained parts."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=words.build_tokenizer(),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    draft = folder.parent / ".generator.draft"
    pipeline.to(torch.float16).save_pretrained(draft)
    pipeline.to(torch.float32)
    common.replace_files(draft, folder)


@torch.no_grad()
def _whitened(vae: AutoencoderKL, pictures: torch.Tensor) -> AutoencoderKL:
    """Give every latent channel mean 0 and deviation 1 by folding the change into the two 1x1 convolutions."""
    vae = copy.deepcopy(vae)
    codes = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(128)])
    mean, spread = codes.mean((0, 2, 3)), codes.std((0, 2, 3))
    into, back, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= spread[None, :, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / spread
    into.weight[:channels] /= spread[:, None, None, None]
    into.bias[channels:] -= 2 * spread.log()
    return vae


def _edges(pictures: torch.Tensor) -> torch.Tensor:
    """Differences to the right and the lower neighbour."""
    right = pictures[:, :, :-1, 1:] - pictures[:, :, :-1, :-1]
    down = pictures[:, :, 1:, :-1] - pictures[:, :, :-1, :-1]
    return torch.cat([right, down], 1)


def _distance(judge: ResNetForImageClassification, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean relative difference of the classifier's feature maps."""
    with torch.no_grad():
        wanted = judge.resnet(real, output_hidden_states=True).hidden_states
    got = judge.resnet(fake, output_hidden_states=True).hidden_states
    return sum((a - b).abs().mean() / b.abs().mean() for a, b in zip(got, wanted, strict=True)) / len(got)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["vae", "text", "unet"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", type=float, default=1e-3)
    parser.add_argument("--perceptual", type=float, default=0.1)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--tag", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
