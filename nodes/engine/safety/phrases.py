"""The check that needs no download: words and phrases, weighted, in English and Chinese, with the innocent phrases that contain them."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from .labels import Verdict

LABEL = "nsfw"


@dataclass(frozen=True)
class PhraseList:
    """Weights per phrase, 0..1: one alone says how unsafe a text is; phrases that make others worse; and those that take theirs back."""

    unsafe: dict[str, float]
    worse: dict[str, float]
    innocent: tuple[str, ...]

    def check(self, text: str) -> Verdict:
        """The highest weight of what the text holds; several lighter ones add up as independent doubts do."""
        plain = _plain(text)
        for phrase in self.innocent:
            plain = _pattern(phrase).sub(" ", plain)
        hits = _hits(self.unsafe, plain)
        if hits:
            hits |= dict([max(_hits(self.worse, plain).items(), key=lambda entry: entry[1], default=("", 0.0))])
        safe = 1.0
        for weight in hits.values():
            safe *= 1 - weight
        return Verdict({LABEL: 1 - safe, **{f"'{phrase}'": weight for phrase, weight in hits.items() if phrase}}, 1 - safe)


def phrase_list() -> PhraseList:
    """The pack's own, from phrases.txt."""
    return parsed((Path(__file__).parent / "phrases.txt").read_text(encoding="utf-8"))


def parsed(text: str) -> PhraseList:
    """A line per weight: `0.9: phrase, phrase`, `worse 0.3: ...` or `innocent: ...`; lines that begin with # are remarks. ValueError for others."""
    unsafe: dict[str, float] = {}
    worse: dict[str, float] = {}
    innocent: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, phrases = line.partition(":")
        listed = [phrase.strip() for phrase in phrases.split(",") if phrase.strip()]
        if kind == "innocent":
            innocent += listed
        else:
            table = worse if kind.startswith("worse ") else unsafe
            table |= dict.fromkeys(listed, float(kind.removeprefix("worse ")))
    return PhraseList(unsafe, worse, tuple(sorted(innocent, key=len, reverse=True)))


def _hits(table: dict[str, float], plain: str) -> dict[str, float]:
    return {phrase: weight for phrase, weight in table.items() if _pattern(phrase).search(plain)}


def _plain(text: str) -> str:
    """Lower case and plain letters, without marks between them: "n-u-d-e" and "n_u_d_e" are one word."""
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", text) if unicodedata.category(letter) != "Cf").casefold().replace("_", "-")
    joined = re.sub(r"\b\w(?:[-.* ]\w\b){2,}", lambda match: re.sub(r"[-.* ]", "", match.group()), visible)
    return re.sub(r"[\s-]+", " ", joined)


def _pattern(phrase: str) -> re.Pattern[str]:
    """Whole words where words have borders; * at an end stands for any ending. Chinese has no borders."""
    words = re.escape(_plain(phrase.rstrip("*")))
    if not phrase.isascii():
        return re.compile(words)
    ending = r"\w*" if phrase.endswith("*") else "(?:s|es)?"
    return re.compile(rf"\b{words}{ending}\b")
