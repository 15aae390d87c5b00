"""An answer's text while it grows is what its tokens are as a whole, whatever they are."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tiny_models import save_tiny_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from raytrain.serving.engine.answer import Answer
from raytrain.serving.engine.choosing import Chosen
from raytrain.serving.engine.request import GenerationRequest, Piece, Sampling
from raytrain.serving.engine.text_stream import TextStream
from raytrain.serving.engine.token_texts import TokenTexts

WORDS = ["<s>", "▁The", "▁sum", "▁is", "▁five", ".", "ty", "▁"]


@pytest.fixture(scope="module")
def bytes_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Byte-level, as GPT-2's."""
    folder = tmp_path_factory.mktemp("bytes")
    save_tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pieces() -> Any:
    """SentencePiece's, as Llama 2 has them: a text's first space is dropped, and what is no word is bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    known = [*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.WordLevel({one: n for n, one in enumerate(known)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def ids(text: str) -> list[int]:
    """Of `pieces`: words between blanks, and the bytes of what is none."""
    found: list[int] = []
    for word in text.split():
        found += [WORDS.index(word)] if word in WORDS else [len(WORDS) + byte for byte in word.encode()]
    return found


def told(tokenizer: Any, tokens: list[int], prompt: list[int] | None = None) -> list[str]:
    stream = TextStream(tokenizer, prompt=prompt or [])
    return [*map(stream.take, tokens), stream.finish()]


def test_any_bytes_are_told_as_they_are_read_as_a_whole(bytes_of: Any) -> None:
    draw = random.Random(0)
    for _ in range(5000):
        tokens = [draw.randrange(len(bytes_of)) for _ in range(draw.randint(1, 16))]
        assert "".join(told(bytes_of, tokens)) == bytes_of.decode(tokens, skip_special_tokens=True), tokens


def test_a_character_behind_stray_bytes_is_there(bytes_of: Any) -> None:
    face = bytes_of("😀")["input_ids"]
    assert len(face) == 4
    for num_strays in range(8):
        tokens = [*face[1:2] * num_strays, *face]
        assert "".join(told(bytes_of, tokens)) == "\ufffd" * num_strays + "😀"


def test_what_will_be_no_character_is_not_held_until_the_end_and_is_not_read_from_its_beginning(
    bytes_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray, letter = bytes_of("😀")["input_ids"][1], bytes_of("a")["input_ids"]
    decode, longest = bytes_of.decode, 0

    def decode_and_measure(tokens: list[int], **more: Any) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return str(decode(tokens, **more))

    monkeypatch.setattr(bytes_of, "decode", decode_and_measure)
    parts = told(bytes_of, [*letter, *[stray] * 500, *letter])
    assert "".join(parts) == "a" + "\ufffd" * 500 + "a"
    assert all(parts[4:500]) and longest < 50


def test_the_space_between_a_prompt_and_its_answer_is_the_answer_s(pieces: Any) -> None:
    answer = ids("▁is ▁five .")
    assert "".join(told(pieces, answer, ids("<s> ▁The ▁sum"))) == " is five."
    assert "".join(told(pieces, ids("ty"), ids("▁five"))) == "ty"
    for prompt in ([], ids("<s>"), ids("<s> <s>")):
        assert "".join(told(pieces, answer, prompt)) == "is five.", "a text begins with no space"


def test_a_prompt_that_ends_within_a_character_keeps_nothing_from_being_told(pieces: Any) -> None:
    whole = ids("▁sum é")
    assert "".join(told(pieces, [*whole[-1:], *ids("▁is")], whole[:-1]))


@pytest.mark.parametrize(
    "text", ["▁is ▁ ▁five", "中文 ▁is", "▁is <s> ▁five", "▁is é🎉ü .", "▁The 🎉🎉", "▁ ▁ ▁is"]
)
def test_pieces_are_told_as_they_are_read_as_a_whole(pieces: Any, text: str) -> None:
    tokens = ids(text)
    assert "".join(told(pieces, tokens)) == pieces.decode(tokens, skip_special_tokens=True)
    prompt = ids("▁The ▁sum")
    both = pieces.decode([*prompt, *tokens], skip_special_tokens=True)
    assert "The sum" + "".join(told(pieces, tokens, prompt)) == both


def test_a_stop_text_ends_it_across_the_prompt_s_end_only_where_it_is_the_answer_s(pieces: Any) -> None:
    stream = TextStream(pieces, ["sum is"], ids("▁The ▁sum"))
    assert "".join(map(stream.take, ids("▁is ▁five"))) == " is five" and not stream.is_stopped
    stream = TextStream(pieces, [" five"], ids("▁The ▁sum"))
    assert [stream.take(one) for one in ids("▁is ▁five")] == [" is", ""] and stream.is_stopped


def test_an_answer_goes_on_from_its_prompt(pieces: Any) -> None:
    told: list[Piece] = []
    request = GenerationRequest("r", tuple(ids("▁The ▁sum")), Sampling(3, top_logprobs=1), None)
    answer = Answer(request, told.append, pieces, TokenTexts(pieces))
    answer.begin()
    five = ids("▁five")[0]
    for token in ids("▁is ▁five ."):
        answer.take(Chosen(token, -1.0, ((five, -2.0),)), end_tokens=())
    assert "".join(one.text for one in told) == " is five." and told[-1].finish is not None
    tokens = [token for one in told for token in one.tokens]
    assert [one.text for one in tokens] == [" is", " five", "."]
    assert {one.alternatives for one in tokens} == {((five, " five", -2.0),)}


def test_a_token_knows_how_much_of_the_text_is_before_it(bytes_of: Any) -> None:
    text = "Hi 😀 there you"
    tokens = bytes_of(text, add_special_tokens=False)["input_ids"]
    told: list[Piece] = []
    request = GenerationRequest("r", (1,), Sampling(len(tokens), top_logprobs=0), None)
    answer = Answer(request, told.append, bytes_of, TokenTexts(bytes_of))
    answer.begin()
    for token in tokens:
        answer.take(Chosen(token, -1.0), end_tokens=())
    assert "".join(one.text for one in told) == text
    offsets = [token.offset for one in told for token in one.tokens]
    whole = [bytes_of.decode(tokens[:size]).rstrip("\ufffd") for size in range(len(tokens))]
    assert offsets == list(map(len, whole)) and len(set(offsets)) < len(tokens), "of one character several"


def test_tokens_beside_probabilities_have_their_spaces(pieces: Any, bytes_of: Any) -> None:
    texts = TokenTexts(pieces)
    assert [texts.of(one, is_first=False) for one in ids("▁is . <s>")] == [" is", ".", "<s>"]
    assert texts.of(ids("▁is")[0], is_first=True) == "is"
    assert texts.of(ids("é")[0], is_first=False) == "\ufffd"
    texts = TokenTexts(bytes_of)
    for token in range(len(bytes_of)):
        for is_first in (True, False):
            assert texts.of(token, is_first=is_first) == bytes_of.decode([token])
