"""Plots of a table."""
