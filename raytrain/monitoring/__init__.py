"""What is served is watched: drift, alerts, and what starts a new run."""
