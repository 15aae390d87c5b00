"""What an entry of a registry's journal says of itself."""

from __future__ import annotations

import pytest

from raytrain.release.registry.journal import Entry, content_of


def entry(time: str = "1970-01-01T00:01:00.500+00:00", action: str = "move") -> Entry:
    return Entry(1, "", time, "ada@host", action, {"alias": "production", "version": "1.0.0"}, "")


@pytest.mark.parametrize(
    "time", ["1970-01-01T00:01:00.500+00:00", "1970-01-01T02:01:00.500+02:00", "1970-01-01T00:01:00.500"]
)
def test_when_it_was_written_without_a_zone_as_utc(time: str) -> None:
    assert entry(time).written_at == 60.5
    assert b"written_at" not in content_of(entry(time))


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="tomorrow"):
        _ = entry("tomorrow").written_at


def test_which_alias_it_moves() -> None:
    assert entry().moves("production")
    assert not entry().moves("staging")
    assert not entry(action="register").moves("production")
