"""Detectors that read value by value, through river: one a file, behind one small interface."""
