"""A stack as JSON, version 1: read without trust, and written as it is read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...spans import Span
from ..routing import LoraChoice
from .links import MOST_LINK, is_link
from .names import check_lora_name, is_text

VERSION = 1
MOST_BYTES = 4_000_000
MOST_LORAS = 100
MOST_WORDS, LONGEST_WORD = 10, 200
LONGEST_ERROR = 400  # characters: a value may be as long as the file
SHA256 = re.compile(r"[0-9a-f]{64}")
KINDS: dict[str, tuple[type, ...]] = {"a text": (str,), "a number": (int, float), "a whole number": (int,), "a list": (list,), "a table": (dict,)}
NEEDED = {"file": "a text", "sha256": "a text", "scale": "a number", "transformer": "a text", "first_step": "a whole number",
          "last_step": "a whole number"}
OPTIONAL = {"size": "a whole number", "url": "a text", "trigger_words": "a list"}
CURE = "Save the stack again with Wan 2.2 Save LoRA Stack, or correct the file."


class StackError(ValueError):
    """A file that is no stack, or a stack that cannot be used; the text names the file, the entry, the value and what to do."""


@dataclass(frozen=True)
class SavedLora:
    """One LoRA of a stack, what its file is known by, and what a user without it needs. ValueError for what no file may say.

    `sha256` is in lower case, `size` in bytes, None where nobody counted; `url` is empty where nobody knows.
    """

    choice: LoraChoice
    sha256: str
    size: int | None = None
    url: str = ""
    trigger_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_lora_name(self.choice.name)
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 is '{self.sha256[:80]}'; it must be 64 hexadecimal digits in lower case.")
        if self.size is not None and self.size < 0:
            raise ValueError(f"size is {self.size}; it must be a number of bytes.")
        if self.url and not is_link(self.url):
            raise ValueError(f"url is {self.url[:80]!r}; it must be a web address (https://...) of at most {MOST_LINK} characters.")
        words = self.trigger_words
        if len(words) > MOST_WORDS or any(not 0 < len(word) <= LONGEST_WORD or not is_text(word) for word in words):
            raise ValueError(f"trigger_words must be at most {MOST_WORDS} texts of 1 to {LONGEST_WORD} characters, without line breaks.")


def stack_text(loras: Sequence[SavedLora]) -> str:
    """The JSON of a stack. StackError for more LoRAs than `read_stack` takes."""
    if len(loras) > MOST_LORAS:
        raise StackError(f"the stack has {len(loras)} LoRAs; a file holds at most {MOST_LORAS}.")
    return json.dumps({"version": VERSION, "loras": [_entry(lora) for lora in loras]}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_stack(content: bytes, file: str) -> tuple[SavedLora, ...]:
    """The LoRAs of a stack; StackError for anything but what `stack_text` writes. `file` is its name for messages."""
    try:
        table = _json(content)
        _check_fields(table, {"version": "a whole number", "loras": "a list"}, {})
        if table["version"] != VERSION:
            raise ValueError(f"version is {table['version']}; this pack knows version {VERSION}. Update the pack, or save the stack again.")
        if len(table["loras"]) > MOST_LORAS:
            raise ValueError(f"it has {len(table['loras'])} LoRAs; a stack has at most {MOST_LORAS}.")
    except ValueError as error:
        raise StackError(f"the stack '{file}' cannot be read: {error} {CURE}") from error
    return tuple(_lora(entry, number, file) for number, entry in enumerate(table["loras"], 1))


def _json(content: bytes) -> Any:
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has {len(content):,} bytes; a stack has at most {MOST_BYTES:,}.")
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8.") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep.") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({str(error)[:100]}).") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _lora(entry: Any, number: int, file: str) -> SavedLora:
    name = entry.get("file") if isinstance(entry, dict) else None
    try:
        _check_fields(entry, NEEDED, OPTIONAL)
        if not all(isinstance(word, str) for word in entry.get("trigger_words", [])):
            raise ValueError("trigger_words must be a list of texts.")
        choice = LoraChoice(entry["file"], entry["scale"], entry["transformer"], Span(entry["first_step"], entry["last_step"]))
        return SavedLora(choice, entry["sha256"], entry.get("size"), entry.get("url", ""), tuple(entry.get("trigger_words", ())))
    except ValueError as error:
        which = f" ({name[:80]!r})" if isinstance(name, str) else ""
        raise StackError(f"the stack '{file}' cannot be used: LoRA {number}{which}: {str(error)[:LONGEST_ERROR]} {CURE}") from error


def _check_fields(table: Any, needed: Mapping[str, str], optional: Mapping[str, str]) -> None:
    """ValueError unless the table has these fields, each of its kind, and no others."""
    if not _is_a("a table", table):
        raise ValueError(f"{_shown(table)} stands where a table must be.")
    known = {**needed, **optional}
    for name, kind in known.items():
        if name in needed and name not in table:
            raise ValueError(f"{name} is missing.")
        if name in table and not _is_a(kind, table[name]):
            raise ValueError(f"{name} is {_shown(table[name])}; it must be {kind}.")
    if unknown := [name for name in table if name not in known]:
        raise ValueError(f"{_shown(unknown[0])} is no field; the fields are: {', '.join(known)}.")


def _is_a(kind: str, value: object) -> bool:
    return isinstance(value, KINDS[kind]) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """The beginning of a value, as a file has it."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _entry(lora: SavedLora) -> dict[str, Any]:
    choice, span = lora.choice, lora.choice.span
    needed = {"file": choice.name, "sha256": lora.sha256, "scale": choice.scale, "transformer": choice.target, "first_step": span.first,
              "last_step": span.last}
    known = {"size": lora.size, "url": lora.url or None, "trigger_words": list(lora.trigger_words) or None}
    return needed | {name: value for name, value in known.items() if value is not None}
