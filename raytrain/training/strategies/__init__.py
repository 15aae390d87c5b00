"""How the workers of a run hold the model together: one file each."""
