from __future__ import annotations

import logging.config
import sys

import absl.logging
import pytest


def test_a_logging_configuration_leaves_the_captured_streams_open(capsys: pytest.CaptureFixture[str]) -> None:
    kept = absl.logging.get_absl_handler().python_handler.stream
    assert kept not in (sys.stderr, sys.stdout), "capsys has put its own in place"
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as uvicorn does
    assert not kept.closed
    absl.logging.error("told")
    assert capsys.readouterr() == ("", ""), "the process's own stderr has it"
