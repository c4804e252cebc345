"""Prompt cleaning exactly as Wan trained with it (wan/modules/tokenizers.py, clean="whitespace")."""

import html
import re

from ..packages import text_fixer

MAX_TOKENS = 512
END_TOKEN = 1


def clean(text: str) -> str:
    """Mend broken unicode, resolve HTML entities (twice, for doubly escaped text) and collapse white space. ValueError where ftfy is missing."""
    text = html.unescape(html.unescape(text_fixer().fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def printable(text: str) -> str:
    """The text without control characters and broken unicode, as a file's metadata can hold it."""
    return "".join(letter for letter in text if letter.isprintable())


def truncate(tokens: list[int], limit: int = MAX_TOKENS) -> list[int]:
    """The first `limit` tokens; a text that was longer ends in the end-of-sequence token (Hugging Face `truncation=True`)."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - 1], END_TOKEN]
