"""Replicas that are busy get another beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench, end_ray, free_port, new_ray_folder, wait_until
from served_releases import Releases
from serving_cluster import Server
from serving_site import references_of
from tiny_models import save_tiny_llama

pytestmark = [pytest.mark.alone, pytest.mark.thorough]


@pytest.mark.timeout(600)
def test_a_busy_replica_gets_another_and_no_request_fails(tmp_path: Path) -> None:
    releases = Releases(tmp_path, save_tiny_llama(tmp_path / "base"))
    digest = releases.release("sums", "1.0.0", seed=1)
    releases.promote("sums@1.0.0")
    port, config = free_port(), tmp_path / "serving.yaml"
    config.write_text(
        json.dumps(
            {
                "base_model": str(releases.base),
                "releases": {"registry": releases.registry.place, "keys": str(releases.ring.folder)},
                "replicas": {"max_replicas": 2, "busy_at": 1, "cpus_per_replica": 0.5},
                "http": {"insecure": True, "port": port},
                "storage": {"path": str(tmp_path / "cache")},
            }
        )
    )
    bench = Bench(tmp_path / "bench", new_ray_folder())
    try:
        running = bench.start("serve", "start", config)
        texts = references_of(releases.base, digest, releases.adapters[digest])
        server = Server(bench, running, releases, f"http://127.0.0.1:{port}", texts)
        wait_until(
            lambda: "ready at" in running.files[0].read_text() or running.process.poll() is not None,
            150,
            lambda: running.files[1].read_text()[-3000:],
        )
        assert server.num_replicas() == 1
        with replace(server.load(), num_connections=16) as load:
            wait_until(lambda: server.num_replicas() == 2, 240, lambda: f"another: {server.ready()}")
            load.wait_for(200)
        assert load.errors == []
        assert load.wrong(texts) == [], f"{len(load.wrong(texts))} of {len(load.answers)}"
        assert len(server.replicas()) == 2
    finally:
        end_ray(bench.ray_folder)
