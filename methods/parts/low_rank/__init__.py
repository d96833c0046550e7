"""A layer as two thinner ones."""
