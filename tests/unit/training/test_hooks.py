from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.training.hooks import Hook, build_hooks

CODE = """
from raytrain.training.hooks import Hook
class Good(Hook):
    pass
class NoHook:
    pass
class Needs(Hook):
    def __init__(self, value):
        pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_hooks_for_tests.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def test_makes_what_a_recipe_names() -> None:
    hooks = build_hooks(["my_hooks_for_tests:Good"])
    assert list(hooks) == ["my_hooks_for_tests:Good"]
    hook = hooks["my_hooks_for_tests:Good"]
    assert isinstance(hook, Hook)
    # A hook overrides what it needs; the rest does nothing.
    hook.on_step_end(1, {})
    hook.on_evaluate(1, {})
    hook.on_checkpoint(1)
    hook.load_state_dict(hook.state_dict())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module_at_all:Good", "ModuleNotFoundError"),
        ("my_hooks_for_tests:Missing", "AttributeError"),
        ("my_hooks_for_tests:Needs", "TypeError"),
        ("my_hooks_for_tests:NoHook", "it makes a NoHook"),
    ],
)
def test_refuses_what_is_no_hook(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        build_hooks([name])
    assert why in caught.value.why
