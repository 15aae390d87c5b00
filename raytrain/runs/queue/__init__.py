"""What waits to be run: decisions in files without a database, one store that claims, back ends that carry."""
