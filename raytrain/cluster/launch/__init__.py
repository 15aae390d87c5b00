"""Clusters that Ray's launcher starts: what is checked of their files, what they cost, and Ray's own commands."""
