"""What a model can do, item by item, and whether that is more than another can."""
