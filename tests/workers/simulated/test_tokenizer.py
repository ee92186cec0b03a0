"""The stand-in tokenizer is reversible, incremental at message boundaries, and its ids fit SGLang's hashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.simulated.tokenizer import EOS_ID, SPECIAL_NAMES, Tokenizer, is_special

PLAIN = st.text(st.characters(codec="utf-8"))
PIECES = st.lists(st.one_of(PLAIN, st.sampled_from([*SPECIAL_NAMES, "<|im_start|>user\n", "<|im_end|>\n", "<|", "|>"])))


@given(PIECES)
def test_decoding_gives_back_the_encoded_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    tokenizer = Tokenizer()
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


@given(PIECES, st.sampled_from(SPECIAL_NAMES), PIECES)
def test_text_that_continues_with_a_special_token_keeps_the_ids_before_it(
    head: list[str], special: str, tail: list[str]
) -> None:
    tokenizer = Tokenizer()
    before = tokenizer.encode("".join(head))
    assert tokenizer.encode("".join(head) + special + "".join(tail))[: len(before)] == before


@given(PLAIN, PLAIN)
def test_texts_share_tokens_as_far_as_they_share_groups_of_four_bytes(left: str, right: str) -> None:
    tokenizer = Tokenizer()
    a, b = left.encode(), right.encode()
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if "<|" not in left + right:
        whole = shared // 4
        assert tokenizer.encode(left)[:whole] == tokenizer.encode(right)[:whole]


@given(PIECES)
def test_every_id_fits_32_bits_and_two_tokenizers_agree(pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = Tokenizer().encode(text)
    assert all(0 <= token < 1 << 32 for token in ids)
    assert Tokenizer().encode(text) == ids


def test_english_text_takes_four_bytes_a_token() -> None:
    assert len(Tokenizer().encode("the quick brown fox jumps over the lazy dog.")) == 11


def test_special_tokens_carry_no_text_unless_asked_for() -> None:
    tokenizer = Tokenizer()
    ids = tokenizer.encode("hi<|im_end|>")
    assert ids[-1] == EOS_ID
    assert is_special(EOS_ID)
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_special=False) == "hi<|im_end|>"


def test_arbitrary_ids_decode_to_some_text_and_impossible_ones_are_refused() -> None:
    tokenizer = Tokenizer()
    assert isinstance(tokenizer.decode([0, 1, 2**32 - 1, 0xF9 | 5 << 8]), str)
    for token in (-1, 2**32):
        with pytest.raises(ValueError, match="outside"):
            tokenizer.decode([token])


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_text_made_to_look_like_endless_headers_does_not_grow_the_tokenizer() -> None:
    tokenizer = Tokenizer()
    for number in range(3_000):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        tokenizer.encode(f"<|im_start|>{name}\n")
    assert len(tokenizer._boundaries) <= 1024
