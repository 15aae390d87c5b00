"""A run whose rows, datasets, checkpoints and result lie on an object store: killed, and gone on with from there."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from bench import Bench, assert_every_row_once_per_epoch, run_id_of, wait_until
from conftest import Straight
from object_server import BUCKET, CREDENTIALS, object_server
from test_kill import losses, wait_for_the_end_of

pytestmark = pytest.mark.thorough
WEIGHTS = "adapter_model.safetensors"


def test_a_killed_run_goes_on_from_an_object_store(
    joined: Bench, straight: Straight, recipe: Path, rows_file: Path
) -> None:
    storage = f"s3://{BUCKET}/raytrain"
    there = [f"storage.path={storage}", f"data.sources=[s3://{BUCKET}/{rows_file.name}]"]
    run_id = run_id_of(recipe, *there)
    with object_server() as server:
        objects = f"http://127.0.0.1:{server.moto_port}/{BUCKET}"
        asked(f"{objects}/{rows_file.name}", rows_file.read_bytes())
        joined.environment = {
            **joined.environment,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.moto_port}",
        }
        joined.hold_at(6)
        running = joined.begin(recipe, *there)
        joined.wait_for_step(running, run_id, 6, timeout_s=240)
        joined.wait_until_held(run_id, world_size=2)
        checkpoint = f"{objects}/raytrain/runs/{run_id}/checkpoints/step-00000004/manifest.json"
        wait_until(lambda: asked(checkpoint) is not None, 30, lambda: checkpoint)
        workers = list(joined.worker_pids(run_id).values())
        joined.kill_now(running.pid)
        assert running.ended().code == -9
        wait_for_the_end_of(workers)
        joined.hold_at(None)
        outcome = joined.train(recipe, *there)
        assert outcome.code == 0, outcome.told()
        weights = asked(f"{objects}/{outcome.object['artifact'].removeprefix(f's3://{BUCKET}/')}/{WEIGHTS}")
    assert joined.resumed_at(run_id) == [4]
    assert outcome.object["artifact"].startswith(f"{storage}/")
    # Not the artifact's digest, which names the recipe: its rows are elsewhere.
    assert weights == Path(straight.outcome.object["artifact"], WEIGHTS).read_bytes()
    assert losses(joined, run_id) == losses(straight.bench, straight.run_id)
    assert_every_row_once_per_epoch(joined.seen(), num_epochs=3, world_size=2)
    artifacts = joined.show(run_id)["artifacts"]
    assert {one["kind"] for one in artifacts} >= {"dataset", "tokens", "checkpoint"}, artifacts
    assert not (joined.home / "storage").exists(), "nothing lies here"


def asked(url: str, upload: bytes | None = None) -> bytes | None:
    """The object, or None where there is none yet."""
    kind = {"content-type": "application/octet-stream"}  # without one it is a form to whoever answers
    request = urllib.request.Request(url, upload, kind, method="GET" if upload is None else "PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError:
        return None
