"""Which settings to take for a model."""
