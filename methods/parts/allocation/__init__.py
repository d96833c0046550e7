"""How much of a budget each layer gets."""
