"""What is minimised: one file a family, chosen by name."""
