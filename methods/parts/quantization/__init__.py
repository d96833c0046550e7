"""Grids, codes and codebooks: weights and activations in few bits."""
