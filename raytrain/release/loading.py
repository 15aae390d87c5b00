"""`python -m raytrain.release.loading FOLDER CACHE DTYPE` loads a model as serving would, and asks it for a token."""

from __future__ import annotations

import sys

from raytrain.errors import PlatformError
from raytrain.models.inference import RELEASED, load_for_inference
from raytrain.storage.location import Location


def main(folder: str, cache: str, dtype: str) -> None:
    """Prints what was loaded; whatever stands in the way is raised."""
    import torch

    loaded = load_for_inference(folder, cache=Location.parse(cache), dtype=dtype, tasks=RELEASED)
    ids = loaded.tokenizer("Hello", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = loaded.model(input_ids=ids).logits
    if not torch.isfinite(logits).all():
        raise ArithmeticError(f"{folder} answers with what is no number")
    number = sum(one.numel() for one in loaded.model.parameters())
    told = f"{number:,} parameters loaded{' with the adapter' if loaded.adapted else ''}, one token answered"
    sys.stdout.write(f"{told}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PlatformError as error:
        # Of a process only the last line is told.
        sys.exit(" ".join(error.line.split()))
