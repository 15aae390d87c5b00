"""Text cleaning: one form for the same text, with indentation and line breaks as the author set them."""

from __future__ import annotations

import re
import unicodedata

_ASCII_CONTROL = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\n\t")
_TRAILING_SPACE = re.compile(r"[ \t]+(?=\n)")

_LINE_BREAKS = "\r\v\f\x85\u2028\u2029"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
# Zero-width space, word joiner, BOM, soft hyphen, and the marks that reorder text. The zero-width joiners
# stay: Persian, Indic scripts and emoji are spelt with them.
_INVISIBLE = "\u200b\u2060\ufeff\u00ad\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_CONTROL = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t" + _LINE_BREAKS]

_REPLACEMENTS: dict[int, str | None] = {
    **dict.fromkeys(_CONTROL),
    **dict.fromkeys(map(ord, _INVISIBLE)),
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _LINE_BREAKS), "\n"),
}


def clean_text(text: str, *, keep_edges: bool = False) -> str:
    """Unicode NFC, `\\n` line ends, no control or invisible characters, no spaces at line ends.

    Blank lines at the start and whitespace at the end go, unless `keep_edges`: where a raw prompt meets its
    completion, that whitespace is part of what is learnt.
    """
    if not _is_plain(text):
        text = text.replace("\r\n", "\n").translate(_REPLACEMENTS)
        text = unicodedata.normalize("NFC", text)
        text = _TRAILING_SPACE.sub("", text)
    return text if keep_edges else text.rstrip().lstrip("\n")


def _is_plain(text: str) -> bool:
    """Whether nothing inside `text` is to be cleaned, as in most rows; faster than a regular expression."""
    if not text.isascii() or " \n" in text or "\t\n" in text:
        return False
    encoded = text.encode()
    return len(encoded.translate(None, _ASCII_CONTROL)) == len(encoded)
