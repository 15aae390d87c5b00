"""One file for each format that a trained model can be written in."""
