"""One worker's loop and everything around it: batches to steps, exact checkpoints, and the hand-over to Ray Train."""
