"""A folder in a folder."""
