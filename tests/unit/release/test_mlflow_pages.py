"""A registry in MLflow's own pages, as a person sees them. They come with the whole of MLflow, which raytrain does not
install: `python -m venv DIR && DIR/bin/pip install mlflow`, and RAYTRAIN_MLFLOW=DIR/bin/mlflow."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")

from browsers import headless_chromium
from mirror_contract import fill
from mlflow_server import mlflow_server

from raytrain.release.keys import KeyRing
from raytrain.release.registry.mirror import follow
from raytrain.release.registry.mlflow_mirror import MlflowMirror
from raytrain.release.registry.registry import Registry

PROGRAM = os.environ.get("RAYTRAIN_MLFLOW") or None
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(PROGRAM is None, reason="RAYTRAIN_MLFLOW names no mlflow program with its pages"),
]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A browser asks for many things at once, so without the proxy."""
    with mlflow_server(tmp_path, program=[str(PROGRAM)]) as proxy:
        yield f"http://127.0.0.1:{proxy.moto_port}"


def test_versions_aliases_lineage_and_metrics_are_seen(url: str, ring: KeyRing, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    fill(registry, ring, tmp_path, "sums")
    follow(MlflowMirror(url), registry, "sums")
    with headless_chromium() as browser:

        def shown(place: str, *words: str) -> str:
            browser.get(f"{url}/#/{place}")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                text = str(browser.find_element("css selector", "body").text)
                if all(one in text for one in words):
                    return text
                time.sleep(0.3)
            raise AssertionError(f"{place} does not show all of {words}: {text}")

        shown("models/sums", "Version 2", "Version 1", "@ production", "@ previous")
        shown("models/sums/versions/2", "made_from.dataset", "sha256:1", "decision.production", "number 1")
        shown("models/sums/versions/1", "raytrain.tags", "golden", "raytrain.version")
        browser.get(f"{url}/#/models/sums/versions/2")
        deadline = time.monotonic() + 60
        while not (found := browser.find_elements("link text", "sums@1.1.0")) and time.monotonic() < deadline:
            time.sleep(0.3)
        found[0].click()  # the run
        place = browser.current_url.partition("#/")[2]
        shown(place, "sums/score", "0.75", "sums/exact match", "0.5")
