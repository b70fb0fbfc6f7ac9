"""The only training loop, prediction, augmentation, weights and checkpoints."""
