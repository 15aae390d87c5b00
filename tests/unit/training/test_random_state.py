from __future__ import annotations

import json
import random

import numpy as np
import torch

from raytrain.training.random_state import capture_random_state, restore_random_state, seed_everything


def draw() -> list[float]:
    return [
        *[random.random() for _ in range(3)],
        random.gauss(0, 1),
        *np.random.rand(3).tolist(),
        float(np.random.standard_normal()),
        *torch.rand(3).tolist(),
        float(torch.dropout(torch.ones(8), 0.5, True).sum()),
    ]


def test_all_generators_go_on_where_they_stood_after_a_trip_through_json() -> None:
    seed_everything(5, world_rank=0)
    draw()
    random.gauss(0, 1)  # leaves the second value of a pair behind, which is state too
    np.random.standard_normal()
    state = json.loads(json.dumps(capture_random_state()))
    expected = draw()
    seed_everything(99, world_rank=0)
    restore_random_state(state)
    assert draw() == expected


def test_ranks_and_seeds_differ_and_repeat() -> None:
    drawn = {}
    for seed in (0, 1):
        for rank in (0, 1):
            seed_everything(seed, rank)
            drawn[seed, rank] = draw()
    assert len({tuple(values) for values in drawn.values()}) == 4
    seed_everything(1, 0)
    assert draw() == drawn[1, 0]
