"""From rows to a decision in one command (`recipe.py`), and the steps of the whole story, one by one (`steps.py`)."""
