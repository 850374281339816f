"""Weights & Biases: the only folder that knows wandb."""
