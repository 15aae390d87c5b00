"""What is released of a trained model: its weights in several formats, what runs them, and what it was made from."""
