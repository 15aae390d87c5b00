from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.config.document import apply_overrides, merge, parse_document, read_document
from raytrain.errors import ConfigError


def test_scalars_are_read_as_people_mean_them() -> None:
    text = "a: 1e-4\nb: no\nc: on\nd: true\ne: 2024-01-02\nf: 0x10\ng: null\nh: .5\ni: 12\nj: '1e-4'\n"
    assert parse_document(text, "r.yaml").values == {
        "a": 1e-4, "b": "no", "c": "on", "d": True, "e": "2024-01-02", "f": 16, "g": None, "h": 0.5, "i": 12,
        "j": "1e-4",
    }  # fmt: skip


def test_every_key_knows_its_line() -> None:
    document = parse_document("train:\n  seed: 1\n  hooks:\n    - a:b\n", "r.yaml")
    assert document.origin(("train", "seed")) == "r.yaml:2"
    assert document.origin(("train", "hooks", 0)) == "r.yaml:4"
    assert document.origin(("train", "unknown")) == "r.yaml:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("- 1\n", "a recipe is a mapping"),
        ("a: 1\na: 2\n", "r.yaml:2: the key `a` stands twice"),
        ("a: [1\nb: 2\n", "not valid YAML"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_bad_text_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_document(text, "r.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path / "latin.yaml")


def test_merge_goes_key_by_key_and_keeps_origins() -> None:
    base = parse_document("a: {x: 1, y: [1, 2]}\nb: 1\n", "base.yaml")
    top = parse_document("\n\na: {y: [3]}\n", "top.yaml")
    merged = merge(base, top)
    assert merged.values == {"a": {"x": 1, "y": [3]}, "b": 1}
    assert merged.origin(("a", "x")) == "base.yaml:1"
    assert merged.origin(("a", "y")) == "top.yaml:3"
    assert merged.origin(("a", "y", 1)) == "top.yaml:3"


def test_overrides_reach_mappings_and_lists() -> None:
    document = parse_document("data: {sources: [{path: a}]}\n", "r.yaml")
    changed = apply_overrides(
        document, ["data.sources.0.path=b c", "train.learning_rate=1e-4", "model=", "x.y={a: 1}"]
    )
    assert changed.values == {
        "data": {"sources": [{"path": "b c"}]}, "train": {"learning_rate": 1e-4}, "model": None, "x": {"y": {"a": 1}},
    }  # fmt: skip
    assert changed.origin(("train", "learning_rate")) == "override 'train.learning_rate=1e-4'"
    assert document.values == {"data": {"sources": [{"path": "a"}]}}, "the document before is left alone"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("novalue", "is not an override"),
        ("=1", "is not an override"),
        ("a..b=1", "is not an override"),
        ("a.b=[1", "not valid YAML"),
        ("n.deep=1", "inside a plain value"),
        ("extends=other.yaml", "presets cannot be named"),
        ("l.5=1", "no element 5"),
        ("l.x=1", "no element 'x'"),
    ],
)
def test_bad_overrides_are_named(override: str, expected: str) -> None:
    document = parse_document("n: 3\nl: [1, 2]\n", "r.yaml")
    with pytest.raises(ConfigError, match=expected):
        apply_overrides(document, [override])
