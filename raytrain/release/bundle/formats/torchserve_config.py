"""model-config.yaml of a TorchServe archive, held against what TorchServe 0.12, its last release, reads of one.

TorchServe passes over a key that it does not know and a value of another type, and runs with its default. Here both are
faults.
"""

from __future__ import annotations

from typing import Any

from raytrain.config.recipe import nearest

_INT_MAX = 2**31 - 1
"""What is larger reaches TorchServe as another type of number, and is passed over."""
_LEAST = {
    "minWorkers": 0,
    "maxWorkers": 0,
    "batchSize": 1,
    "maxBatchDelay": 0,  # ms
    "responseTimeout": 1,  # s
    "startupTimeout": 1,  # s
    "maxRetryTimeoutInSec": 1,
    "clientTimeoutInMills": 0,
    "jobQueueSize": 1,
}
"""Whole numbers, and the smallest that TorchServe takes."""
_SWITCHES = ("useJobTicket", "useVenv")
_DEVICES = ("cpu", "gpu")
_KEYS = (*_LEAST, *_SWITCHES, "deviceType", "deviceIds")
_NOT_DONE = frozenset(
    (
        *("parallelType", "parallelLevel", "torchrun", "continuousBatching", "asyncCommunication"),
        *("sequenceBatching", "sequenceMaxIdleMSec", "sequenceTimeoutMSec"),
        *("maxSequenceJobQueueSize", "maxNumSequence"),
    )
)
"""Read by TorchServe, and for handlers that split a model or keep sequences, which a bundle's does not."""


def model_config(changes: dict[str, Any], *, gpu: bool) -> dict[str, Any]:
    """One worker that answers one caller after another, as inference.py does; `changes` take the place of that."""
    usual = {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "responseTimeout": 120,
        "startupTimeout": 600,
        "deviceType": "gpu" if gpu else "cpu",
    }
    return {**usual, **changes}


def config_faults(content: object) -> list[str]:
    """What TorchServe would not take as it is written, in words; and more workers at least than at most."""
    if not isinstance(content, dict):
        return ["it is no mapping of keys to values"]
    faults = [fault for key, value in content.items() if (fault := _fault(key, value))]
    least, most = content.get("minWorkers"), content.get("maxWorkers")
    if not faults and least is not None and most is not None and least > most:
        faults.append(f"minWorkers {least} is more than maxWorkers {most}")
    return faults


def _fault(key: object, value: object) -> str | None:
    if key in _NOT_DONE:
        return f"{key} is for handlers that split a model or keep sequences; a bundle's does neither"
    if key not in _KEYS:
        near = nearest(str(key), _KEYS)
        return f"TorchServe reads no `{key}`" + (f"; did you mean `{near}`?" if near else "")
    if key in _LEAST:
        least = _LEAST[str(key)]
        return None if _is_int(value, least) else f"{key} is a whole number from {least}, not {value!r}"
    if key in _SWITCHES:
        return None if isinstance(value, bool) else f"{key} is true or false, not {value!r}"
    if key == "deviceType":
        return None if value in _DEVICES else f"deviceType is cpu or gpu, not {value!r}"
    is_list = isinstance(value, list) and value and all(_is_int(one, 0) for one in value)
    return None if is_list else f"deviceIds is a list of whole numbers, not {value!r}"


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _INT_MAX
