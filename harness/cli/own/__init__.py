"""The commands that take somebody's own model and images."""
