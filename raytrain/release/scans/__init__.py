"""Whether a folder holds anything that must not be handed on: secrets, code in weights, files that nobody can read."""
