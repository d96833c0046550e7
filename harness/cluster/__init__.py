"""A sweep handed over to Ray."""
