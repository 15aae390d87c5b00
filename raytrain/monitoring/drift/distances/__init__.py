"""How far two histograms on one grid are from each other: one measure a file."""
