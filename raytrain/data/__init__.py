"""From raw rows to a dataset artifact, and from there to batches: read, clean, deduplicate, split, tokenize, batch."""
