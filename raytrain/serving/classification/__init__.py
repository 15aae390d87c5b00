"""Texts put into classes: one body for all classifiers over a base model, and a head for each."""
