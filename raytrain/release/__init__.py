"""From a trained adapter to a version that others may run: a bundle, signed, in a registry, through a gate."""
