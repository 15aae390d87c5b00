from __future__ import annotations

import json
import os
import random
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads only wait for each other

import absl.logging
import hypothesis
import pytest

# How long an example takes says nothing where others use the cores too.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")

if TYPE_CHECKING:
    from commands import Told

    from raytrain.runs.records import Records
    from raytrain.storage.location import Location

sys.path.insert(0, str(Path(__file__).parent))


# absl (TensorBoard, rouge_score) keeps the stderr it is imported under, which is pytest's own capture file, and
# closes it as soon as a logging configuration (uvicorn's) is applied while a capsys stands in its place: every
# test that follows ends with "I/O operation on closed file". The process's own stderr it leaves open.
absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)

# What a shell starts in the background ignores Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a RAYTRAIN_HOME of its own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RAYTRAIN_HOME", str(folder))
    monkeypatch.delenv("RAYTRAIN_DATABASE", raising=False)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    from postgres_server import postgres_server

    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, home: object) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        from raytrain.storage.database import database_url

        return database_url()
    from postgres_server import new_database

    return new_database(request.getfixturevalue("postgres"), f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def records(home: object) -> Iterator[Records]:
    """Those of the test's own home."""
    from raytrain.runs.records import open_records

    found = open_records()
    yield found
    found.close()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Only what the command itself prints: what was printed before is gone."""
    from raytrain.cli.main import run

    def told(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return told


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with tokenizer and chat template in a local folder."""
    from tiny_models import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """A models' cache with the real model, converted once for all processes of the session."""
    from real_model import convert_in

    own = tmp_path_factory.getbasetemp()
    return convert_in(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """Sixty short question and answer rows, no two alike."""
    generator = random.Random(7)
    pairs = [(generator.randint(100, 999), generator.randint(100, 999)) for _ in range(60)]
    return [
        {
            "question": f"Case {i}: add {a} and {b}, then name the result.",
            "answer": f"The sum of {a} and {b} is {a + b}.",
        }
        for i, (a, b) in enumerate(pairs)
    ]
