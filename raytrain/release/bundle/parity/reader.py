"""Run by itself: load one format as a stranger would, and tell what it answers. Nothing of raytrain is imported."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Reads the job from the file that is named; a line of JSON on stdout for each prompt, its logits in a file."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    import numpy as np

    loader = _import_file(Path(job["loader"]))
    base = Path(job["base"]) if job["base"] else None
    generator = loader.load(Path(job["bundle"]), job["format"], base, job["device"])
    if hasattr(generator, "model"):
        from transformers import GenerationConfig

        # A base model may ask for penalties of repetition and the like: what is compared is the model itself.
        generator.model.generation_config = GenerationConfig()
    for number, one in enumerate(job["prompts"]):
        ids = generator.encode(one["asked"])[: one["most_tokens"]]
        line: dict[str, Any] = {"ids": ids}
        if ids == one["ids"]:
            np.save(Path(job["out"]) / f"{number}.npy", generator.logits([*ids, *one["continuation"]]))
            line["tokens"] = generator.generate(ids, job["max_new_tokens"], 0.0)
        answers.write(json.dumps(line) + "\n")
        answers.flush()
    foreign = sorted(name for name in sys.modules if name.partition(".")[0] == "raytrain")
    if foreign:
        sys.stderr.write(f"{foreign[0]} was imported: this is no stranger's process\n")
        return 1
    return 0


def _import_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("loader", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
