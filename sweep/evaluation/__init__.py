"""What is computed from trained models."""
