from __future__ import annotations

import pickle

import pytest

from raytrain import errors


@pytest.mark.parametrize(
    ("name", "code", "builtin"),
    [
        ("ConfigError", 2, ValueError),
        ("DataError", 3, ValueError),
        ("TrainingError", 4, RuntimeError),
        ("DivergedError", 4, RuntimeError),
        ("ClusterError", 4, RuntimeError),
        ("StorageError", 4, OSError),
        ("MachineError", 4, RuntimeError),
        ("IntegrityError", 5, RuntimeError),
    ],
)
def test_each_error_has_its_exit_code_and_survives_pickling(name: str, code: int, builtin: type) -> None:
    error = getattr(errors, name)("what", why="why", fix="fix")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (back.what, back.why, back.fix) == ("what", "why", "fix")
    assert error.exit_code == code
    assert isinstance(error, builtin)
    assert "why: why" in str(error)
    assert error.as_dict() == {"kind": error.kind, "what": "what", "why": "why", "fix": "fix"}


def test_a_line_of_an_error_says_what_and_why() -> None:
    ours = errors.DataError("no rows", why="the file is empty", fix="name another")
    assert ours.line == errors.line_of(ours) == "no rows: the file is empty"
    assert errors.line_of(KeyError("rows")) == "KeyError: 'rows'"
