"""Rows, tables and what is said of them."""
