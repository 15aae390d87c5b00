"""What a recipe may name: things that register themselves, and a user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError

T = TypeVar("T", bound=Callable[..., object])


class Registry(Generic[T]):
    """Functions or classes by plain name.

    `noun` is what one is called (loss, scorer), `key` the recipe's key that names it. `built_in` are modules that
    register theirs when they are imported, which happens when somebody first asks.
    """

    def __init__(self, noun: str, key: str, built_in: Sequence[str]) -> None:
        self._noun = noun
        self._key = key
        self._built_in = tuple(built_in)
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Make what follows known by this name. Raises ConfigError where the name is taken, or could not be told from
        `module:Class`."""
        if not name or ":" in name:
            raise ConfigError(
                f"a {self._noun} cannot be registered as `{name}`",
                why="a colon is for module:Class" if name else "the name is empty",
                fix="choose a plain name",
            )

        def remember(one: T) -> T:
            taken = self._registered.setdefault(name, one)
            if taken is not one:
                raise ConfigError(
                    f"the {self._noun} `{name}` is registered twice",
                    why=f"{taken.__module__}.{getattr(taken, '__qualname__', taken)} has this name already",
                    fix="choose another name",
                )
            return one

        return remember

    def names(self) -> list[str]:
        for module in self._built_in:
            importlib.import_module(module)
        return sorted(self._registered)

    def find(self, name: str) -> T:
        """What has this name. Raises ConfigError, with the nearest name, where nothing has."""
        known = self.names()
        if name not in self._registered:
            near = nearest(name, known)
            raise ConfigError(
                f"{self._key}: there is no {self._noun} `{name}`",
                why=f"registered are: {', '.join(known)}",
                fix=f"did you mean `{near}`?"
                if near
                else "choose one of these, or name your own as module:NAME",
            )
        return self._registered[name]
