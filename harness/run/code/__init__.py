"""Code read without being run: what it means, what it imports, which rules it keeps."""
