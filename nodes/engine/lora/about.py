"""What trainers leave in a LoRA's metadata for whoever uses it: trigger words, title, author, the model it was made for. Metadata may be anything."""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

MOST_JSON = 4_000_000  # characters of a table that is looked at
MOST_WORDS, LONGEST_WORD, LONGEST_PHRASE = 5, 60, 100
MOST_CHARACTERS = 200  # of a line, behind the file's name
NEARLY_ALL = 0.9  # of the pictures
TRIGGERS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_phrase", "trigger_words", "trigger_word", "trainedWords", "ss_activation_text",
            "activation text", "instance_prompt")
BASES = ("ss_base_model_version", "modelspec.architecture")
NOTHING = ("", "unknown", "none", "null", "undefined")  # which programs write for what they do not know
I2V = re.compile(r"(?<!t)i2v", re.IGNORECASE)
RESOLUTION = re.compile(r"\(?(\d{2,5})(?:x|, ?)(\d{2,5})(?:x(\d{1,4}))?\)?")
DATE = re.compile(r"\d{4}-\d\d-\d\d(?=\D|$)")
EARLIEST = 1.6e9  # seconds since 1970
MARKUP = str.maketrans({"<": "(", ">": ")", "[": "(", "]": ")", "`": "'", "|": "/", "\\": None, "*": None, "~": "-"})
ADDRESS = re.compile(r"\w*://|(?<=www)\.", re.IGNORECASE)  # which Markdown makes links
EDGE = re.compile(r"(?<!\w)_+|_+(?!\w)")  # underscores inside a word are no markup


def harmless(text: object, most: int) -> str:
    """A text from elsewhere as one line of at most `most` characters that neither Markdown nor HTML takes for anything but text."""
    line = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text)[: 10 * most])
    line = " ".join(ADDRESS.sub(" ", EDGE.sub("", line.translate(MARKUP))).split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


def trigger_words(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The words to put into a prompt, harmless: those that the trainer names, else the tags of nearly all of its pictures."""
    named = next(filter(None, (_phrases(metadata.get(key)) for key in TRIGGERS)), None)
    words = named if named is not None else _common_tags(metadata)
    return tuple(dict.fromkeys(words))[:MOST_WORDS]


def about(name: str, metadata: Mapping[str, Any]) -> str:
    """One line on a file for the report; empty where its metadata tells nothing."""
    words = ", ".join(trigger_words(metadata))
    facts = [f"trigger words: {words}" if words else "", _title(name, metadata), _other_base(metadata), _training(metadata)]
    line = harmless("; ".join(filter(None, facts)), MOST_CHARACTERS)
    return f"{name}: {line}" if line else ""


def _said(value: object, most: int) -> str:
    """A harmless text; empty for a word that says nothing."""
    text = harmless(value, most)
    return "" if text.casefold() in NOTHING else text


def _phrases(value: object) -> list[str]:
    """A phrase as it stands, or a list of them."""
    listed = _json(value, list) if isinstance(value, str) and value.lstrip().startswith("[") else value
    phrases = listed if isinstance(listed, list) else [value]
    return [text for phrase in phrases[: 4 * MOST_WORDS] if isinstance(phrase, str) and (text := _said(phrase, LONGEST_PHRASE))]


def _common_tags(metadata: Mapping[str, Any]) -> list[str]:
    """Tags of nearly all pictures of all folders; where a folder does not say how many it has, its most frequent tag counts them."""
    sizes = _json(metadata.get("ss_dataset_dirs"), dict) or {}
    counts: Counter[str] = Counter()
    pictures = 0
    for folder, tags in (_json(metadata.get("ss_tag_frequency"), dict) or {}).items():
        found = {tag: count for tag, count in tags.items() if _is_count(count)} if isinstance(tags, dict) else {}
        size = sizes[folder].get("img_count") if isinstance(sizes.get(folder), dict) else None
        most = max(found.values(), default=0)
        if most > 1 or len(found) <= MOST_WORDS or _is_count(size):  # many, once each: whole captions, of which none is a tag
            pictures += size if isinstance(size, int) and _is_count(size) else most
            counts.update(found)
    common = Counter({tag: count for tag, count in counts.items() if count >= NEARLY_ALL * pictures and len(tag) <= LONGEST_WORD})
    return list(filter(None, (harmless(tag, LONGEST_WORD) for tag, _ in common.most_common(MOST_WORDS))))


def _title(name: str, metadata: Mapping[str, Any]) -> str:
    """Title and author; a title that the file's own name says is none."""
    title, author = (_said(metadata.get(f"modelspec.{key}", ""), LONGEST_WORD) for key in ("title", "author"))
    file = re.split(r"[/\\]", name)[-1].casefold()
    titled = f"'{title}'" if title and not file.startswith(title.casefold()) else ""
    return " ".join(filter(None, (titled, f"by {author}" if author else "")))


def _other_base(metadata: Mapping[str, Any]) -> str:
    """The model that the file was made for, where that is not Wan for text to video."""
    bases = [base for key in BASES if (base := _said(metadata.get(key, ""), LONGEST_WORD).split("/")[0])]
    of_wan = [base for base in bases if "wan" in base.casefold()]
    made_for = next((base for base in of_wan if I2V.search(base)), "") if of_wan else next(iter(bases), "")
    return f"made for {made_for}" if made_for else ""


def _training(metadata: Mapping[str, Any]) -> str:
    """At what resolution, and when."""
    sizes = (RESOLUTION.fullmatch(str(metadata.get(key, ""))[:40]) for key in ("modelspec.resolution", "ss_resolution"))
    resolution = next(("x".join(filter(None, size.groups())) for size in sizes if size), "")
    date = DATE.match(str(metadata.get("modelspec.date", ""))[:40])
    day = date[0] if date else _day(metadata.get("ss_training_finished_at"))
    facts = ", ".join(filter(None, (f"at {resolution}" if resolution else "", day)))
    return f"trained {facts}" if facts else ""


def _day(seconds: object) -> str:
    """The day of a time in seconds since 1970; empty for what is none, and for a time before there were LoRAs."""
    try:
        time = float(str(seconds)[:40])
        return datetime.fromtimestamp(time, timezone.utc).date().isoformat() if time > EARLIEST else ""
    except (ValueError, OverflowError, OSError):
        return ""


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 < value < 1e9


def _json(value: object, kind: type) -> Any:
    """A table or list that is written as text; None for anything else."""
    try:
        read = json.loads(value) if isinstance(value, str) and len(value) <= MOST_JSON else None
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, kind) else None
