from conftest_search import tune_recipe

__all__ = ["tune_recipe"]
