"""Prompt text reaches the encoder as the official code would send it."""

import pytest

from engine.text.cleaning import END_TOKEN, MAX_TOKENS, clean, truncate


@pytest.mark.parametrize(("raw", "cleaned"), [
    ("  a cat \n\n on\ta   mat ", "a cat on a mat"),
    ("salt &amp;amp; pepper", "salt & pepper"),
    ("caf\u00c3\u00a9", "caf\u00e9"),
    ("a (red:1.3) [hat]", "a (red:1.3) [hat]"),
    ("\u3000\u4e00\u53ea\u732b\u3000", "\u4e00\u53ea\u732b"),
    ("", ""),
])
def test_cleaning_is_the_official_one(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_cleaning_twice_changes_nothing() -> None:
    once = clean("a &lt;b&gt;  “quoted” text…")
    assert clean(once) == once


def test_long_texts_keep_their_first_tokens_and_an_end() -> None:
    tokens = [*range(10, 10 + MAX_TOKENS), END_TOKEN]
    cut = truncate(tokens)
    assert len(cut) == MAX_TOKENS
    assert cut[-1] == END_TOKEN
    assert cut[:-1] == tokens[: MAX_TOKENS - 1]


def test_short_texts_stay_as_they_are() -> None:
    assert truncate([5, 6, END_TOKEN]) == [5, 6, END_TOKEN]
