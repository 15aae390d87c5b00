"""Interactions become rows to learn from, where those who asked agree and nothing speaks against it."""
