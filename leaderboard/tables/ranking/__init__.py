"""Which rows are best, and which cannot be told apart."""
