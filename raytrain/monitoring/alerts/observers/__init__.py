"""One file a place that is looked at: it says what is to be told, and tells nobody."""
