"""Adapters by their digest: verified, read, kept within a budget of memory."""
