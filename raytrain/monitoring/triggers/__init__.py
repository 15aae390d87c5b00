"""When a new run is to start: decided from plain values, kept with its reasons, ordered once."""
