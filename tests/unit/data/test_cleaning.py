from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytrain.data.cleaning import clean_text
from raytrain.data.quality import length_signal, letter_signal, line_signal, quality_score, word_signal


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("plain text", "plain text"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("a  \nb\t\nc  ", "a\nb\nc"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\ufeffzero\u200bwidth\x00 and\x07 bell", "zerowidth and bell"),
        ("def f():\n    return 1\n\n\treturn", "def f():\n    return 1\n\n\treturn"),
        ("\n\n  indented first line", "  indented first line"),
        ("no\u00a0break", "no break"),
        ("right\u202eleft", "rightleft"),
        (
            "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
    ],
)
def test_text_is_normalised(dirty: str, clean: str) -> None:
    assert clean_text(dirty) == clean


def test_edges_stay_where_asked() -> None:
    assert clean_text("Q: \r\nA: ", keep_edges=True) == "Q:\nA: "


@given(st.text(st.characters()))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert not any(code in once for code in "\x00\r\x1d\x1e\x1f\u200b")


@given(st.text(st.characters()))
def test_quality_lies_between_0_and_1(text: str) -> None:
    assert 0.0 <= quality_score(text) <= 1.0


def test_ordinary_text_scores_one_and_junk_does_not() -> None:
    assert quality_score("Natalia sold clips to 48 of her friends in April.\nHow many did she sell?") == 1.0
    assert quality_score("!!! ??? ### $$$ %%% ^^^ &&& ***") < 0.5
    assert quality_score("buy now " * 50) < 0.1
    assert quality_score("") == 0.0


def test_each_signal_sees_its_fault() -> None:
    assert length_signal("short") == 0.25
    assert letter_signal("a!!!!!!!!!") < 0.2
    assert letter_signal("\u00fcber \u65e5\u672c\u8a9e") == 1.0
    assert word_signal("one two three four") == 1.0
    assert word_signal("spam " * 20) == 0.1
    assert line_signal("same\nsame\nsame\nother") == 0.5
