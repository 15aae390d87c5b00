"""What a serving config says: `serve/*.yaml`, and `raytrain serve start`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.serving.classification.section import ClassificationSection
from raytrain.serving.engine.section import EngineSection
from raytrain.serving.http.section import HttpSection
from raytrain.serving.trials.section import TrialSection
from raytrain.storage.section import StorageSection

APPLICATION = "raytrain"
"""Its name on a cluster."""
REPLICA = "replica"
"""The deployment that answers."""

SERVING = Form("serving config", "base_model and what is served over it", "serve/", "docs/serving.md")


class ReleaseSection(Section):
    """`releases:`: which versions are served, and whom they must be signed by."""

    registry: str | None = None
    """Folder or URI of the registry; null = $RAYTRAIN_HOME/registry."""
    names: list[str] | None = None
    """Names that are served; null = all whose adapters are over this base model."""
    keys: str | None = None
    """Folder of the key ring; null = $RAYTRAIN_HOME/keys. Public keys are all it needs."""
    policies: list[str] | None = None
    """Digests of the gate's policies that a version may have been let in by; null = any."""
    poll_s: float = Field(default=0.25, gt=0.0, le=60.0)
    """How often the registry is asked whether an alias has moved."""


class ReplicasSection(Section):
    """`replicas:`: how many processes answer, and what each takes of the cluster."""

    num_replicas: int = Field(default=1, ge=1)
    """At first, and always unless max_replicas is more."""
    max_replicas: int | None = Field(default=None, ge=1)
    """Ray Serve adds replicas up to so many while they are busy; null = as many as num_replicas."""
    busy_at: int = Field(default=8, ge=1)
    """Requests that a replica answers at a time on average before another is added."""
    surge_percent: int = Field(default=0, ge=0, le=100)
    """Of num_replicas: so many new ones start before old ones end where the config changes, if the cluster has room for
    them, and wait for it if not; 0 = an old one ends first."""
    routing: Literal["load", "adapters"] = "load"
    """load = the less busy replica; adapters = one that holds the adapter, while it is not much busier than others."""
    spread_at: int = Field(default=4, ge=1)
    """With `routing: adapters`: a replica with so many requests more than the least busy is passed over, and another
    reads the adapter too."""
    cpus_per_replica: float = Field(default=1.0, gt=0)
    """Of the cluster's; a replica computes with so many threads unless `threads` is set."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """Of the cluster's."""

    @model_validator(mode="after")
    def _check_most(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, less than num_replicas: {self.num_replicas}"
            )
        return self

    @property
    def scaling(self) -> dict[str, Any]:
        """As Ray Serve's deployments take it."""
        if self.max_replicas is None or self.max_replicas == self.num_replicas:
            return {"num_replicas": self.num_replicas}
        return {
            "autoscaling_config": {
                "min_replicas": self.num_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.busy_at,
            }
        }


class ServingSection(Section):
    """One base model, and the released adapters over it."""

    base_model: str
    """As in a recipe: hub id, local folder, .gguf file, artifact, or package://PACKAGE/FILE."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype that the base model's weights are held in; adapters are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model computes; auto = a GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """Of a replica on a CPU; null = replicas.cpus_per_replica."""
    releases: ReleaseSection = Field(default_factory=ReleaseSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    classification: ClassificationSection = Field(default_factory=ClassificationSection)
    replicas: ReplicasSection = Field(default_factory=ReplicasSection)
    trials: list[TrialSection] = Field(default_factory=list)
    """Candidates that are held against production."""
    http: HttpSection = Field(default_factory=HttpSection)
    storage: StorageSection = Field(default_factory=StorageSection)
    """Where a model that was converted, as from GGUF, is kept."""

    @model_validator(mode="after")
    def _is_one_trial_a_name(self) -> Self:
        names = [one.name for one in self.trials]
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise ValueError(f"`trials` has two for {', '.join(twice)}: a name's requests can be in one")
        return self

    @property
    def num_threads(self) -> int:
        """Of one replica."""
        return self.threads or max(1, int(self.replicas.cpus_per_replica))


def load_serving(path: Path, overrides: list[str] | None = None) -> ServingSection:
    """A serving config's file. Raises ConfigError that names file, line and key."""
    return build(ServingSection, load_recipe(path, overrides, SERVING))
