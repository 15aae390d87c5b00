"""Two replicas on two nodes, asked by 16 connections without a pause while one thing after another goes wrong. What
`benchmarks/serving_faults.py` plays at length, briefly; how long things take is told there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving_clients import CannotMountError, Stream
from serving_matrix import FAULTS, Fault, flip, play
from serving_site import Site, site

from benchmarks.serving_load import Load, wait_until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module", params=["ray", pytest.param("haproxy", marks=pytest.mark.thorough)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Behind Ray Serve's own proxies, and behind HAProxy."""
    with site(tmp_path_factory.mktemp("faults"), behind_haproxy=request.param == "haproxy") as found:
        yield found


def test_promoted_and_rolled_back_while_everybody_asks(server: Site) -> None:
    with Load(server.port, server.questions) as load:
        load.wait_for(30)
        flips = flip(server, 4)
        load.wait_for(30)
    assert load.errors == []
    assert load.wrong(server.references) == []
    by = {one.digest for one in load.answers if one.question.model == "sums"}
    assert by == {flips[0].old, flips[0].new}, "both versions were asked"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_no_answer_is_another_s_and_none_is_lost_for_good(server: Site, fault: Fault) -> None:
    try:
        played = play(server, fault, num_before=20, num_after=40)
    except CannotMountError as error:
        pytest.skip(str(error))
    load = played.load
    assert load.wrong(server.references) == []
    lost = [one for one in load.answers if one.is_server_s_fault]
    if fault.is_deaf:
        assert {one.status for one in lost} <= {0}, "nobody listens for a while, and nobody says otherwise"
    else:
        assert lost == [], f"of {len(load.answers)}, after one more try where a process was killed"
    assert load.num_answered >= 60


def test_streams_go_on_where_their_replica_is_killed(server: Site) -> None:
    """Greedy and drawn ones, in the middle of long answers: word for word what is told undisturbed."""
    asked = [{"temperature": number % 2, "seed": number} for number in range(8)]
    streams = [Stream(server, 600, **one) for one in asked]
    for one in streams:
        one.read(5)
    wait_until(lambda: server.engine("running") == len(streams), 10, lambda: f"all: {server.numbers()}")
    server.replicas()[0].kill()
    for one in streams:
        one.read()
    assert [(one.error, one.is_done) for one in streams] == [(None, True)] * len(streams)
    server.wait_until_whole()
    undisturbed = [Stream(server, 600, **one) for one in asked]
    assert [one.text for one in streams] == [one.read().text for one in undisturbed]
    assert all(len(one.text) > 300 for one in streams)
