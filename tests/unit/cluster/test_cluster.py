from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from pydantic import ValidationError

from raytrain.cluster.connection import check_somebody_answers, connect, count_placeable, is_kind_of_node
from raytrain.cluster.section import WorkersSection
from raytrain.cluster.token import WrongTokenError
from raytrain.errors import ClusterError

CPU_4 = {"CPU": 4.0, "memory": 1e9}
GPU_2 = {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "worker", "asked", "placed"),
    [
        ([CPU_4], {"CPU": 1.0}, 2, 2),
        ([CPU_4], {"CPU": 1.0}, 4, 4),
        ([CPU_4], {"CPU": 1.0}, 64, 4),
        ([CPU_4], {"CPU": 3.0}, 2, 1),  # what two nodes have together helps nobody on one
        ([CPU_4, CPU_4], {"CPU": 3.0}, 3, 2),
        ([CPU_4], {"CPU": 5.0}, 1, 0),
        ([CPU_4], {"CPU": 0.1}, 40, 40),  # 4.0 / 0.1 in floating point is not allowed to lose one
        ([CPU_4], {"CPU": 1.0, "GPU": 1.0}, 2, 0),
        ([CPU_4, GPU_2], {"CPU": 1.0, "GPU": 1.0}, 8, 2),
        ([], {"CPU": 1.0}, 1, 0),
        ([CPU_4], {"CPU": 0.0}, 3, 3),
    ],
)
def test_counts_workers_that_fit_node_by_node(
    nodes: list[dict[str, float]], worker: dict[str, float], asked: int, placed: int
) -> None:
    assert count_placeable(nodes, worker, asked) == placed


@pytest.mark.parametrize(
    ("strategy", "placed"), [("PACK", 6), ("SPREAD", 6), ("STRICT_PACK", 4), ("STRICT_SPREAD", 2)]
)
def test_a_strict_strategy_has_room_on_one_node_or_for_one_worker_on_each(strategy: str, placed: int) -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 0.0}]
    assert count_placeable(nodes, {"CPU": 1.0}, 8, strategy) == placed
    assert count_placeable([], {"CPU": 1.0}, 8, strategy) == 0


@pytest.mark.parametrize(
    ("name", "is_kind"),
    [
        ("ray.head.default", True),
        ("gpu", True),
        ("node_pool", True),
        ("", False),
        (f"node_{'0f' * 28}", False),
    ],
)
def test_which_names_an_autoscaler_took_from_a_file(name: str, is_kind: bool) -> None:
    assert is_kind_of_node(name) is is_kind


def test_what_a_worker_reserves() -> None:
    scaling = WorkersSection(
        num_workers=2, use_gpu=True, cpus_per_worker=2.5, resources_per_worker={"disk": 1.0}
    )
    assert scaling.worker_resources == {"CPU": 2.5, "GPU": 1.0, "disk": 1.0}
    typed = scaling.model_copy(update={"accelerator_type": "A100"}).worker_resources
    nodes = [{"CPU": 8.0, "GPU": 8.0, "disk": 8.0, f"accelerator_type:{one}": 1.0} for one in ("T4", "A100")]
    assert count_placeable(nodes, typed, 8) == 3, "the other node's GPUs are of another type"
    assert scaling.threads == 2
    assert WorkersSection(cpus_per_worker=0.5).threads == 1
    assert WorkersSection(threads_per_worker=7).threads == 7


@pytest.mark.parametrize(
    ("given", "kept", "least", "most", "is_elastic"),
    [(3, 3, 3, 3, False), ([1, 2], (1, 2), 1, 2, True), ([2, 2], 2, 2, 2, False)],
)
def test_a_number_of_workers_or_a_range(
    given: Any, kept: Any, least: int, most: int, is_elastic: bool
) -> None:
    scaling = WorkersSection(num_workers=given)
    assert (scaling.num_workers, scaling.min_workers, scaling.max_workers) == (kept, least, most)
    assert scaling.is_elastic == is_elastic
    assert WorkersSection.model_validate(scaling.model_dump(mode="json")) == scaling


@pytest.mark.parametrize("given", [0, [0, 2], [1], [1, 2, 3], "many", True, [True, 2], [1, 100_001], 1.5])
def test_no_number_of_workers(given: Any) -> None:
    with pytest.raises(
        ValidationError, match=r"from 1 to 100000, or \[least, most\]|takes no true"
    ) as caught:
        WorkersSection(num_workers=given)
    assert caught.value.error_count() == 1, "one sentence, not one for each form"


def test_a_range_whose_least_is_more_than_its_most() -> None:
    with pytest.raises(ValidationError, match="3 is more than 2"):
        WorkersSection(num_workers=(3, 2))


def test_a_port_that_listens_is_let_through_and_one_that_does_not_is_refused() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        check_somebody_answers(address, within_s=1)
        check_somebody_answers(f"ray://{address}", within_s=1)
    started = time.monotonic()
    with pytest.raises(ClusterError, match=address) as caught:
        check_somebody_answers(address, within_s=0.2)
    assert time.monotonic() - started < 2
    assert "nobody answered" in caught.value.why
    with pytest.raises(ClusterError):
        check_somebody_answers("127.0.0.1:999999", within_s=0.2)


@pytest.mark.parametrize("address", ["auto", "local", "some-host"])
def test_what_ray_looks_up_by_itself_is_let_through(address: str) -> None:
    check_somebody_answers(address, within_s=0.0)


@pytest.mark.parametrize(
    ("faults", "num_starts"),
    [
        ([Exception("The current node timed out during startup. Or so.")], 2),
        ([Exception("The current node timed out during startup.")] * 2, 2),
        ([RuntimeError("something else")], 1),
    ],
)
def test_a_start_that_was_too_slow_is_tried_once_more(
    faults: list[Exception], num_starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    left, starts = list(faults), []

    def init(**options: Any) -> None:
        starts.append(options)
        if left:
            raise left.pop(0)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if len(faults) == num_starts:
        with pytest.raises(ClusterError) as refused:
            connect(None, verbose=False)
        assert str(faults[-1]) in refused.value.why
    else:
        connect(None, verbose=False)
    assert len(starts) == num_starts


REFUSAL = "Traceback …\nray.exceptions.AuthenticationError: InvalidAuthToken: missing or incorrect"


@pytest.mark.parametrize(
    ("mode", "said", "told"),
    [
        ("token", REFUSAL, "refuses the token"),
        (None, REFUSAL, "wants a token, and none was sent"),
        ("token", None, "wants a token, and none was sent"),
    ],
)
def test_a_token_that_is_refused_is_told_with_what_to_do(
    mode: str | None, said: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**_options: Any) -> None:  # as Ray does: in the text of a cause, or of a kind of its own
        if said is None:
            raise ray.exceptions.AuthenticationError("no authentication token was found")
        try:
            raise RuntimeError(f"Failed to connect to GCS. Last connection error: {said}")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster") from error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(WrongTokenError) as caught:
            connect(address, verbose=False)
    assert (caught.value.what, caught.value.exit_code) == (f"the cluster at {address} {told}", 4)
    assert "set RAY_AUTH_MODE=token" in caught.value.fix


def test_a_cluster_of_another_version_is_told_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    import ray
    from ray._private.utils import check_version_info

    def init(
        **_options: Any,
    ) -> None:  # what ray.init calls when it has joined, with what the cluster says of itself
        check_version_info({"ray_version": "2.9.3", "python_version": "3.9.18"}, "node 10.0.0.4")

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"the cluster at {address} and this command are of") as caught:
            connect(address, verbose=False)
    here = f"Ray {ray.__version__} with Python {platform.python_version()}"
    assert caught.value.why == f"the cluster has Ray 2.9.3 with Python 3.9.18, this command {here}"
    assert "use the same version of both on every machine" in caught.value.fix
    assert caught.value.exit_code == 4
