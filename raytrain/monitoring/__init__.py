"""What is served is watched: drift, alerts, what starts a new run, and what is learned from those who use it."""
