"""What the files in serve/ are there for. That raytrain reads them is among the tests of the guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.serving.section import load_serving

FOLDER = Path(__file__).parents[3] / "serve"
OURS = sorted(one for one in FOLDER.glob("*.yaml") if one.name != "vllm.yaml")


def test_what_each_is_there_for() -> None:
    sections = {one.stem: load_serving(one) for one in OURS}
    assert {"laptop", "gpu", "canary", "shadow", "replicas"} <= sections.keys()
    assert sections["gpu"].replicas.scaling["autoscaling_config"]["max_replicas"] == 8
    assert [one.mode for one in sections["canary"].trials] == ["canary"]
    assert [one.mode for one in sections["shadow"].trials] == ["shadow"]
    assert sections["replicas"].replicas.routing == "adapters"
    assert not any(one.http.insecure for one in sections.values())


def test_the_application_is_built_with_the_router() -> None:
    from ray.serve._private.request_router.common import PendingRequest  # what Ray hands a router

    from raytrain.serving.adapter_router import AdapterRouter, _model_of
    from raytrain.serving.backend import Ask
    from raytrain.serving.deployment import build_application
    from raytrain.serving.engine.request import Sampling

    args = load_serving(FOLDER / "replicas.yaml").model_dump(mode="json")
    (replicas, _) = build_application(args)._bound_deployment.init_args
    config = replicas._bound_deployment._deployment_config.request_router_config
    assert config.get_request_router_class() is AdapterRouter
    assert config.request_router_kwargs == {"spread_at": 4}
    asked = PendingRequest([Ask("r", "sums@staging", "x", Sampling(1))], {}, None, future=None)  # type: ignore[arg-type]
    assert _model_of(asked) == "sums@staging"
    assert _model_of(PendingRequest([], {}, None, future=None)) is None  # type: ignore[arg-type]


def test_vllm_is_asked_for_what_ray_serve_llm_knows() -> None:
    # ray.serve.llm itself wants vLLM, which wants CUDA; its config's class does not.
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig
    from ray.serve.schema import ServeDeploySchema

    written = yaml.safe_load((FOLDER / "vllm.yaml").read_text(encoding="utf-8"))
    (application,) = ServeDeploySchema.model_validate(written).applications
    assert application.import_path == "ray.serve.llm:build_openai_app"
    (given,) = application.args["llm_configs"]
    config = LLMConfig.model_validate(given)
    assert config.model_id == "smollm2-135m"
    assert config.lora_config is not None and config.lora_config.dynamic_lora_loading_path
    assert config.lora_config.max_num_adapters_per_replica == given["engine_kwargs"]["max_loras"]
    wrong: dict[str, Any] = {**given, "lora_config": {"dynamic_lora_loading_path": "/tmp/adapters"}}
    with pytest.raises(ValueError, match="lora_config"):
        LLMConfig.model_validate(wrong)
