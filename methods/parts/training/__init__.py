"""The one training loop, its losses, and narrower models to train."""
