from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import Page, headless_chromium
from served_models import save_adapter
from tiny_models import save_tiny_llama

from raytrain.models.inference import LoadedModel, load_for_inference
from raytrain.storage.location import Location


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("served") / "base")


@pytest.fixture(scope="session")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By a digest that is none: of other ranks, modules and scales."""
    folder = tmp_path_factory.mktemp("adapters")
    others = {
        "a": {"rank": 4},
        "b": {"rank": 2, "target_modules": ["q_proj", "down_proj"]},
        "c": {"rank": 8, "use_rslora": True},
        "d": {"rank": 3, "rank_pattern": {"v_proj": 5}, "alpha_pattern": {"k_proj": 1}},
    }
    return {
        name: save_adapter(base, folder / name, seed=seed, **settings)  # type: ignore[arg-type]
        for seed, (name, settings) in enumerate(others.items())
    }


@pytest.fixture
def loaded(base: Path, tmp_path: Path) -> LoadedModel:
    """Of its own for each test: a bank changes the model's modules."""
    return load_for_inference(str(base), cache=Location(str(tmp_path / "cache")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless_chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    yield Page(browser)
    browser.get("about:blank")  # or it would go on asking a server that has ended
    browser.get_log("browser")
