"""One file a step. It never changes once it is released, and imports nothing of raytrain, which does."""
