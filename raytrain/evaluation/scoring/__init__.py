"""From an output and what was wanted to a score: one file a kind of scorer."""
