from conftest_search import tune_recipe
from conftest_search_run import ray

__all__ = ["ray", "tune_recipe"]
