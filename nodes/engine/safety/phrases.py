"""The check that needs no download: words and phrases, weighted, in English and Chinese, with the innocent phrases that contain them."""

import re
from dataclasses import dataclass
from pathlib import Path

from .labels import Verdict

LABEL = "nsfw"


@dataclass(frozen=True)
class PhraseList:
    """Weights per phrase, 0..1: one alone says how unsafe a text is; and phrases that take theirs back."""

    unsafe: dict[str, float]
    innocent: tuple[str, ...]

    def check(self, text: str) -> Verdict:
        """The highest weight of what the text holds; several lighter ones add up as independent doubts do."""
        plain = _plain(text)
        for phrase in self.innocent:
            plain = _pattern(phrase).sub(" ", plain)
        found = {phrase: weight for phrase, weight in self.unsafe.items() if _pattern(phrase).search(plain)}
        innocent = 1.0
        for weight in found.values():
            innocent *= 1 - weight
        return Verdict({LABEL: 1 - innocent, **{f"'{phrase}'": weight for phrase, weight in found.items()}}, 1 - innocent)


def phrase_list() -> PhraseList:
    """The pack's own, from phrases.txt."""
    return parsed((Path(__file__).parent / "phrases.txt").read_text(encoding="utf-8"))


def parsed(text: str) -> PhraseList:
    """A line per weight: `0.9: phrase, phrase`; `innocent: phrase, phrase`; lines that begin with # are remarks. ValueError for another line."""
    unsafe: dict[str, float] = {}
    innocent: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        weight, _, phrases = line.partition(":")
        listed = [phrase.strip() for phrase in phrases.split(",") if phrase.strip()]
        if weight.strip() == "innocent":
            innocent += listed
        else:
            unsafe |= dict.fromkeys(listed, float(weight))
    return PhraseList(unsafe, tuple(sorted(innocent, key=len, reverse=True)))


def _plain(text: str) -> str:
    """Lower case, without marks between letters: "n-u-d-e" and "n.u.d.e" are one word."""
    joined = re.sub(r"\b(\w)(?:[-.*_ ](\w)\b){2,}", lambda match: re.sub(r"[-.*_ ]", "", match.group()), text.casefold())
    return re.sub(r"[\s_-]+", " ", joined)


def _pattern(phrase: str) -> re.Pattern[str]:
    """Whole words where words have borders; * at an end stands for any ending. Chinese has no borders."""
    words = re.escape(phrase.casefold().rstrip("*")).replace(r"\ ", r"\s+")
    if not phrase.isascii():
        return re.compile(words)
    ending = r"\w*" if phrase.endswith("*") else "(?:s|es)?"
    return re.compile(rf"\b{words}{ending}\b")
