"""Somebody's own model and images: compressed, measured and stored as the benchmark
does it, without a track. The Python door `shrinkmark.py` opens on it.
"""
