"""Is what was exported the model that was trained? Every format is loaded in a fresh process and answers for itself."""
