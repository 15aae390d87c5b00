from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest


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
