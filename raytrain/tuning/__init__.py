"""The search for good values of a recipe's keys: Optuna chooses them, Ray Tune runs the trials."""
