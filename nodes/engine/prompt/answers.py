"""A language model's answer made into a prompt: reasoning, markup, quotation marks and talk around it taken away."""

import re
from collections.abc import Iterable

MAX_WORDS = 200
IDEOGRAPHS_PER_WORD = 1.7  # Chinese characters that say as much as an English word
_IDEOGRAPH = r"[\u3400-\u4dbf\u4e00-\u9fff]"
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)[\"'\u201d\u2019]?|[\u3002\uff01\uff1f][\u201d\u300d]?")
_REASONING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FINAL_CHANNEL = "<|channel|>final<|message|>"
_SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|</?prompt>|</?s>")
_FENCE = re.compile(r"```\w{0,20}\n?(.*?)```", re.DOTALL)
_MARKUP = (
    (re.compile(r"^[ \t]{0,3}(?:#{1,6}\s+|>\s?|[-*+\u2022]\s+|\d{1,2}[.)]\s+)", re.MULTILINE), ""),
    (re.compile(r"(?<![\w*])(\*{1,3}|__|`)(?=[^\s*])([^*`\n]{1,500}?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"^[ \t]*[-*_]{3,}[ \t]*$", re.MULTILINE), ""),
    (re.compile(r"^(?:subject|action|scene|setting|light(?:ing)?(?: and mood)?|mood|camera)\s*:\s+", re.MULTILINE | re.IGNORECASE), ""),
)
_PREFACE = re.compile(
    r"^(?:(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|great|\u597d\u7684|\u5f53\u7136)\s*[,!.:\uff0c\u3002\uff01\uff1a]\s*)*"
    r"(?:(?:here(?:'s|\u2019s| is| are)|below is|this is|i(?:'ve|\u2019ve| have))\b(?:[^\n:.]|\.\d){0,60}"
    r"\b(?:prompt|version|description|rewrit|expan|rephras)(?:[^\n:.]|\.\d){0,60}:\s*"
    r"|(?:\u4ee5\u4e0b\u662f|\u8fd9\u662f|\u4e0b\u9762\u662f)[^\n:\uff1a\u3002]{0,40}[:\uff1a]\s*)?", re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:(?:expanded|rewritten|enhanced|final|revised|video|new|the)\s+)*(?:prompt|version|answer|output|description)\s*[:\uff1a]\s*"
    r"|^(?:\u6269\u5c55|\u6539\u5199|\u6700\u7ec8|\u89c6\u9891)*(?:\u63d0\u793a\u8bcd|\u63cf\u8ff0)\s*[\uff1a:]\s*", re.IGNORECASE)
_REMARK = re.compile(r"\n[ \t]*\(?(?:note\b|let me know|word count|words?:|i hope|would you|feel free|explanation|\d+ words|\u6ce8[\uff1a:]"
                     r"|\u5b57\u6570|\u5e0c\u671b|this (?:prompt|version|description) (?:keeps|includes|adds|captures|is|has|maintains))[^\n]*$",
                     re.IGNORECASE)
_REFUSAL = re.compile(r"^(?:i'm|i am|i\u2019m|sorry|i can(?:not|'t|\u2019t)|i won't|as an ai|unfortunately"
                      r"|\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u6211\u65e0\u6cd5|\u6211\u4e0d\u80fd)", re.IGNORECASE)
MOST_CHARACTERS = 20_000  # an answer's, once its reasoning is gone: what follows is no paragraph
_QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("\u300c", "\u300d"), ("\u300e", "\u300f"))


def prompt_in(answer: str) -> str:
    """The prompt alone, on one line, of at most MAX_WORDS words; empty where the answer holds none."""
    text = re.sub(r"\s*\n\s*\n\s*", "\n\n", _without_reasoning(answer)[:MOST_CHARACTERS])
    fenced = _FENCE.search(text) if text.count("```") > 1 else None
    text = _SPECIAL.sub("", fenced.group(1) if fenced else text).strip()
    for pattern, kept in _MARKUP:
        text = pattern.sub(kept, text)
    text = _REMARK.sub("", text.strip())
    text = _LABEL.sub("", _PREFACE.sub("", text).strip())
    return shortened(_unquoted(re.sub(r"\s+", " ", text).strip()))


def _without_reasoning(answer: str) -> str:
    """What follows the last end of reasoning; where it never ends, what precedes its beginning."""
    answer = answer.rpartition(_FINAL_CHANNEL)[2]
    marks = list(_REASONING.finditer(answer))
    if ends := [mark.end() for mark in marks if mark.group(1)]:
        return _without_reasoning(answer[ends[-1] :])
    return answer[: marks[0].start()] if marks else answer


def is_refusal(text: str) -> bool:
    """Whether the model speaks of itself instead of a video: "I'm sorry, but I can't ..."."""
    return bool(_REFUSAL.match(text)) and words(text) < MAX_WORDS // 2


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES:
        inside = text[1:-1]
        if len(text) > 1 and text[0] == opening and text[-1] == closing and opening not in inside and closing not in inside:
            return inside.strip()
    return text


def shortened(text: str, limit: int = MAX_WORDS) -> str:
    """The first whole sentences that have at most `limit` words; one sentence that is longer alone stays whole."""
    if words(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    count, kept = 0, 0
    for begin, end in zip([0, *ends], ends, strict=False):
        count += words(text[begin:end])
        if count > limit:
            break
        kept = end
    return text[: kept or (ends[0] if ends else None)].strip()


def words(text: str) -> int:
    """How many words a text has; Chinese characters count by what they say."""
    ideographs = len(re.findall(_IDEOGRAPH, text))
    return len(re.sub(_IDEOGRAPH, " ", text).split()) + round(ideographs / IDEOGRAPHS_PER_WORD)


def is_chinese(text: str) -> bool:
    """Whether a text is in Chinese rather than with some Chinese in it."""
    return 2 * len(re.findall(_IDEOGRAPH, text)) > len(re.findall(r"[A-Za-z]", text)) and bool(re.search(_IDEOGRAPH, text))


def lost(prompt: str, expanded: str) -> tuple[str, ...]:
    """Quoted texts and numbers of the prompt that the expansion does not have."""
    return tuple(piece for piece in _to_keep(prompt) if not re.search(rf"(?<!\d){re.escape(piece)}(?!\d)", expanded, re.IGNORECASE))


def _to_keep(prompt: str) -> Iterable[str]:
    quoted = re.findall(r"\"([^\"]+)\"|\u201c([^\u201d]+)\u201d|\u300c([^\u300d]+)\u300d", prompt)
    pieces = ["".join(groups) for groups in quoted] + re.findall(r"\d+(?:[.,]\d+)?", prompt)
    return dict.fromkeys(pieces)
