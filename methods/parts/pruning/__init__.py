"""Choosing weights and channels that go, and taking them out."""
