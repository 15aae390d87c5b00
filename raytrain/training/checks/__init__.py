"""Proofs about a recipe that a person can ask for: `raytrain check …`, one file a check."""
