"""From raw rows to a served, monitored model on Ray, with proof of every step."""

__version__ = "0.1.0"
