"""From raw rows to batches: read, clean, deduplicate, split into a dataset artifact, tokenize, batch."""
