"""The distances by name."""

from __future__ import annotations

from typing import Literal, get_args

from raytrain.monitoring.drift.distances.chi_square import CHI_SQUARE
from raytrain.monitoring.drift.distances.distance import Distance
from raytrain.monitoring.drift.distances.energy import ENERGY
from raytrain.monitoring.drift.distances.js import JS
from raytrain.monitoring.drift.distances.ks import KS
from raytrain.monitoring.drift.distances.mmd import MMD
from raytrain.monitoring.drift.distances.psi import PSI
from raytrain.monitoring.drift.distances.wasserstein import WASSERSTEIN

DistanceName = Literal["js", "psi", "ks", "chi_square", "energy", "mmd", "wasserstein"]
DISTANCE_NAMES: tuple[DistanceName, ...] = get_args(DistanceName)
DISTANCES: dict[str, Distance] = {
    one.name: one for one in (JS, PSI, KS, CHI_SQUARE, ENERGY, MMD, WASSERSTEIN)
}
