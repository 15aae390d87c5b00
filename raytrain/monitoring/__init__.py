"""What is served is watched: drift, alerts, triggers, and what is learned from those who use it."""
