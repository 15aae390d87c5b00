"""Why a base model could not be loaded, in the words of the person who has to deal with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.model_files import find_damaged_safetensors, first_line

if TYPE_CHECKING:
    from raytrain.models.base import ResolvedModel


def explain_load_failure(
    error: Exception, resolved: ResolvedModel, attention: str, described: str
) -> Exception:
    """Name who is at fault: the files (IntegrityError) or what was asked for (ConfigError)."""
    why = first_line(error)
    damaged = find_damaged_safetensors(Path(resolved.path))
    if damaged is not None:
        return IntegrityError(
            f"{damaged[0]} is damaged",
            why=damaged[1],
            fix=f"remove {resolved.path} and fetch or convert the model again",
        )
    if isinstance(error, RuntimeError) and "size" in str(error) and "match" in str(error):
        return IntegrityError(
            f"the weights of `{resolved.reference}` do not fit its config.json",
            why=why,
            fix="take config.json and the weights from the same copy of the model",
        )
    if "attn" in why.lower() or "attention" in why.lower() or isinstance(error, ImportError):
        return ConfigError(
            f"`{resolved.reference}` cannot be loaded with attention `{attention}`",
            why=why,
            fix="set model.attention to sdpa or eager"
            if attention != "eager"
            else "install what is named above",
        )
    return ConfigError(
        f"`{resolved.reference}` cannot be loaded",
        why=why,
        fix=f"check that it is {described} that this transformers release knows, and model.task; "
        "a model with its own code needs model.trust_remote_code=true",
    )
