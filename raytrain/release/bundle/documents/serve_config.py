"""serve.yaml for Ray Serve, over the application that inference.py builds."""

from __future__ import annotations

from typing import Any

import yaml

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.documents.needs import Needs


def render_serve_config(description: BundleDescription, needs: Needs) -> str:
    """One replica answers one caller after another, and lets a few wait."""
    arguments = {"format": needs.form, "device": needs.device, "quantization": "none"}
    if needs.form == "adapter":
        arguments["base"] = "/base"
    content: dict[str, Any] = {
        "applications": [
            {
                "name": "model",
                "route_prefix": "/",
                "import_path": "inference:build_app",
                "args": arguments,
                "deployments": [
                    {
                        "name": "Generator",
                        "num_replicas": 1,
                        "max_ongoing_requests": 4,
                        "ray_actor_options": {
                            "num_cpus": 1,
                            "num_gpus": 1 if needs.gpu else 0,
                            "memory": needs.memory_bytes,
                        },
                    }
                ],
            }
        ]
    }
    files = "-r requirements.txt -r serve-requirements.txt -c serve-constraints.txt"
    head = [f"# In this folder: pip install {files} && serve run serve.yaml", f"# {needs.quantization}"]
    if needs.form == "adapter":
        head.append(f"# base: the folder of {description.base_model.reference}")
    return "\n".join(head) + "\n" + yaml.safe_dump(content, sort_keys=False)
