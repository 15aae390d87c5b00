"""Run records: what happened, what is going on, and where its metrics, events and artifacts are."""
