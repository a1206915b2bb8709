"""What synthetic films are worth for training models that are used on real ones."""
