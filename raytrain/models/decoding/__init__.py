"""Answers token by token: prompts read into a cache, rows continued side by side, the likeliest token each time."""
