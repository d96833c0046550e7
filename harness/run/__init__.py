"""Points, their fingerprints, and the processes that run them."""
