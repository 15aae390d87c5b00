"""Who writes answers: many requests at a time, each under the adapter that it names."""
