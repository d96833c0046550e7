"""Datasets, and the splits of a track."""
