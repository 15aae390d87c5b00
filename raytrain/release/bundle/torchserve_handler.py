"""How TorchServe asks this archive: the body of a prediction is what inference.py takes at POST /generate.

TorchServe imports it from the unpacked archive, beside inference.py, which verifies and loads the model.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

_NO_JSON = (400, {"error": "send one JSON object, with Content-Type: application/json"})


@cache
def service(folder: str, device: str) -> Any:
    """Verified and loaded once in a worker. Raises RefusedBundle, and the worker does not start."""
    inference = importlib.import_module("inference")
    found = inference.Service(Path(folder), "merged", None, device)
    found.start()
    return found


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
    """TorchServe calls it without data when a worker starts, then with one entry a request."""
    told = context.system_properties
    gpu = told.get("gpu_id")
    model = service(str(told["model_dir"]), "cpu" if gpu is None else f"cuda:{gpu}")
    if data is None:
        return None
    answers = []
    for number, request in enumerate(data):
        body = _body(request)
        status, content = model.answer("POST", "/generate", body) if body is not None else _NO_JSON
        if status != 200:
            context.set_response_status(code=status, phrase="refused", idx=number)
        context.set_response_content_type(number, "application/json")
        answers.append(content)
    return answers


def _body(request: dict[str, Any]) -> bytes | None:
    """TorchServe hands over JSON as what it holds, and other bodies as bytes; None for a form, which it takes apart."""
    body = request.get("body", request.get("data"))
    if body is None or isinstance(body, bytes | bytearray):
        return None if body is None else bytes(body)
    return json.dumps(body).encode()
