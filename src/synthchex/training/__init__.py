"""What fine-tuning a text-to-image model is said with."""
