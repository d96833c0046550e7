"""Sources whose hashes are stored: what Pythons write into a syntax tree in different ways."""
