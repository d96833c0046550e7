"""Layers and blocks that go, and those that become one."""
