"""Ray Serve in front of a base model and its adapters: engine, adapters, HTTP."""
