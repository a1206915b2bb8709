"""What fine-tuning a text-to-image model is said with: recipe, latents, objectives, adapters, checkpoints, validation."""
