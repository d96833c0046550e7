"""Somebody's own model on somebody's own images, as an experiment of its own: which
methods at which settings, how long it will take, and the compressed models to take away.
"""
