"""One format, loaded and asked in a process of its own that knows nothing of raytrain."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raytrain.release.bundle as bundle_package
from raytrain.release.bundle.parity.reference import Answer
from raytrain.release.bundle.parity.section import ExportCheckSection
from raytrain.release.fresh_process import last_words, offline_surroundings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOADER = Path(bundle_package.__file__).with_name("inference.py")
"""The program that lies in every bundle. It is run from the package, never from the bundle that is judged."""
_READER = Path(__file__).with_name("reader.py")


class FreshProcessFailed(Exception):
    """The format could not be loaded, or did not answer."""


@dataclass(frozen=True)
class FreshAnswer:
    """What the format made of one prompt; without logits where it reads the prompt as other tokens."""

    ids: list[int]
    tokens: list[int]
    logits: NDArray[np.float32] | None


def fresh_answers(
    bundle: Path, form: str, base: Path | None, answers: Sequence[Answer], section: ExportCheckSection
) -> Iterator[FreshAnswer]:
    """In the order of `answers`. Raises FreshProcessFailed with the process's own last words."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="raytrain-export-") as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(json.dumps(_job(bundle, form, base, answers, section, scratch)), encoding="utf-8")
        words = Path(scratch) / "stderr"
        with words.open("wb") as stderr, _start(job, stderr) as process:
            assert process.stdout is not None
            for number in range(len(answers)):
                line = process.stdout.readline()
                if not line.strip():
                    break
                told: dict[str, Any] = json.loads(line)
                file = Path(scratch) / f"{number}.npy"
                logits = np.load(file, allow_pickle=False) if "tokens" in told else None
                file.unlink(missing_ok=True)
                yield FreshAnswer(told["ids"], told.get("tokens", []), logits)
            process.stdout.read()
        if process.returncode:
            said = words.read_text(encoding="utf-8", errors="replace")
            raise FreshProcessFailed(last_words(process.returncode, said))


def _job(
    bundle: Path,
    form: str,
    base: Path | None,
    answers: Sequence[Answer],
    section: ExportCheckSection,
    scratch: str,
) -> dict[str, Any]:
    asked = [
        {
            "asked": one.prompt.asked,
            "ids": one.ids,
            "continuation": one.tokens,
            "most_tokens": one.most_tokens,
        }
        for one in answers
    ]
    return {
        "loader": str(LOADER),
        "bundle": str(bundle),
        "format": form,
        "base": None if base is None else str(base),
        "device": "cpu",
        "prompts": asked,
        "max_new_tokens": section.max_new_tokens,
        "out": scratch,
    }


def _start(job: Path, stderr: Any) -> subprocess.Popen[bytes]:
    # -I: neither the caller's folder nor PYTHONPATH is looked into.
    command = [sys.executable, "-I", str(_READER), str(job)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=offline_surroundings())
