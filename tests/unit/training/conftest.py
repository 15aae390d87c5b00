from conftest_training import base, make_job

__all__ = ["base", "make_job"]
