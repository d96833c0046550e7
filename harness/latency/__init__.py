"""Timing artefacts on a machine."""
