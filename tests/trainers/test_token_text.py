"""Tokens read as what they add to a text."""

from collections.abc import Sequence

from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import load_tokenizer
from agentgym.trainers.token_text import token_texts

BYTES = [bytes([n]) for n in range(256)]


def decode_bytes(ids: Sequence[int]) -> str:
    return b"".join(BYTES[i] for i in ids).decode(errors="replace")


def decode_words(ids: Sequence[int]) -> str:
    """As tokenizers do whose words begin with a blank, which they drop at the beginning."""
    words = {1: " go", 2: " to", 3: " bed"}
    return "".join(words[i] for i in ids).removeprefix(" ")


def test_a_character_of_several_tokens_belongs_to_the_last_of_them() -> None:
    ids = list("né→!".encode())
    # n; é is 2 bytes; the arrow is 3; !
    assert token_texts(ids, decode_bytes) == ["n", "", "é", "", "", "→", "!"]


def test_bytes_that_are_no_text_do_not_swallow_what_follows() -> None:
    texts = token_texts([0xFF, *b"abc"], decode_bytes)
    assert "".join(texts).endswith("abc")
    assert len(texts) == 4


def test_a_turn_that_was_cut_within_a_character_says_so() -> None:
    assert token_texts(list("aé".encode())[:2], decode_bytes) == ["a", "\ufffd"]


def test_a_blank_that_decoding_drops_at_the_beginning_is_told_inside() -> None:
    assert token_texts([1, 2, 3], decode_words) == ["go", " to", " bed"]


def test_no_tokens_are_no_texts() -> None:
    assert token_texts([], decode_bytes) == []


def test_the_texts_of_a_real_tokenizer_join_to_what_it_decodes() -> None:
    tokenizer = load_tokenizer(resolve_model("alfworld-tiny"))
    ids = tokenizer.encode("go to cabinet 1 → ünïcode\n", add_special_tokens=False)
    ids = [*ids, tokenizer.eos_token_id]
    texts = token_texts(ids, lambda some: tokenizer.decode(some, skip_special_tokens=False))
    assert "".join(texts) == tokenizer.decode(ids, skip_special_tokens=False)
    assert len(texts) == len(ids)
