"""Machinery for recipes: strict sections, YAML with positions, dotted overrides, presets, and errors that point."""
