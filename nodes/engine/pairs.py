"""Which of the two experts a file name speaks of, and which file is its partner."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

EXPERTS = ("high", "low")
CHINESE = {"\u9ad8": "high", "\u4f4e": "low"}  # before the character for noise
WORDS = {"high": "high", "low": "low"}
NOISE_WORDS = {"highnoise": "high", "hinoise": "high", "hnoise": "high", "lownoise": "low", "lonoise": "low", "lnoise": "low"}
SHORT = {"hi": "high", "lo": "low"}  # only before "noise"
INITIALS = {"hn": "high", "ln": "low"}
LETTERS = {"h": "high", "l": "low"}
COUNTERPARTS = {"high": "low", "low": "high", "highnoise": "lownoise", "lownoise": "highnoise", "hinoise": "lownoise", "lonoise": "highnoise",
                "hnoise": "lnoise", "lnoise": "hnoise", "hi": "low", "lo": "high", "hn": "ln", "ln": "hn", "h": "l", "l": "h"}
# What may stand behind an expert's word in a name that ends there: versions, sizes, types, tools. Single letters count too (v2, 14B, e40).
TAGS = re.compile("loras?|light(?:ning|x)|distill(?:ed)?|turbo|wan|ti|model|expert|adapter|checkpoint|ckpt|weights|steps?|epochs?|ep|ver|version|fp|"
                  "bf|gguf|scaled|comfy|kj|final|last|best|fixed|new|old|test|copy|seko|resized|pruned|lcm|dmd")
# English phrases, which no partner file makes an expert
THINGS = {
    "high": re.compile("heel(?:s|ed)?|contrast|quality|res|resolution|rez|key|angles?|fashion|school|speed|detail(?:s|ed)?|def|definition|fantasy|"
                       "tech|end|rise|waist(?:ed)?|tops?|fps|dynamic|fidelity|octane|collar|neck|ponytail|jump|kick|five|tide|society|dpi|poly|budget|"
                       "class|chair|socks|boots|voltage|light(?:s|ing)?|exposure|saturation|colors?|tower"),
    "low": re.compile("poly(?:gon)?|key|angles?|light(?:s|ing)?|lit|res|resolution|quality|cut|rise|fi|contrast|budget|tide|fps|detail(?:s|ed)?|"
                      "riders?|waist(?:ed)?|ponytail|neck|bun|exposure|saturation|battery|tech|life|level|tops?|brow|bitrate|vram|mem|memory"),
}
COMPOUNDS = re.compile("sky|knee|thigh|ankle|mile|ultra|super|very|too|so|aim|lie|lay|junior")  # "sky high" ends no pair
_WAN22 = re.compile(r"wan[ ._-]?2[._-]?2(?!\d)", re.IGNORECASE)  # whose files are halves of pairs
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CHINESE = re.compile("[\u9ad8\u4f4e]\u566a\u58f0?")
_SUFFIX = re.compile(r"\.(?:safetensors|sft|gguf|pth?|ckpt|bin)$", re.IGNORECASE)
_RANK = re.compile(r"rank_?\d+")


class Certainty(IntEnum):
    """How surely a word speaks of an expert: perhaps, if there is a partner; likely; beyond doubt ("high noise")."""

    PERHAPS = 1
    LIKELY = 2
    SURE = 3


@dataclass(frozen=True)
class Mention:
    """A place in a path that speaks of an expert; `word` is the part of it that a partner has otherwise."""

    start: int
    end: int
    word: str
    expert: str
    certainty: Certainty


@dataclass(frozen=True)
class Name:
    """A path as ComfyUI lists it, with `/` on every system, and what it says of experts, folders first."""

    path: str
    mentions: tuple[Mention, ...]

    def without_experts(self) -> str:
        """What both files of a pair have in common: the words for the expert, and the rank, are taken out."""
        path = self.path
        for mention in reversed(self.mentions):
            path = f"{path[: mention.start]}*{path[mention.end :]}"
        return _RANK.sub("rank", path.lower())

    def expert(self) -> str | None:
        """The expert that the name alone says; the file's own name counts before its folders', and "high noise" before "low rank"."""
        for begin, end in self._segments():
            inside = [mention for mention in self.mentions if begin <= mention.start < end]
            sure = {mention.expert for mention in inside if mention.certainty is Certainty.SURE}
            said = sure or {mention.expert for mention in inside}
            if len(said) == 1 and any(mention.certainty > Certainty.PERHAPS for mention in inside):
                return said.pop()
            if len(sure) > 1:
                return None
        return None

    def partners(self, others: Sequence["Name"]) -> list[tuple[str, str]]:
        """(expert of this file, the other's path) for every file that differs from this one only in the expert that it names."""
        if not self.mentions:
            return []
        common = self.without_experts()
        paired = ((self._expert_against(other), other.path) for other in others
                  if len(other.mentions) == len(self.mentions) and other.without_experts() == common)
        return [(expert, path) for expert, path in paired if expert]

    def partner_to_look_for(self, expert: str) -> str:
        """The path that the other half of the pair would have."""
        most = max((mention.certainty for mention in self.mentions if mention.expert == expert), default=Certainty.SURE)
        path = self.path
        for mention in reversed(self.mentions):
            if mention.expert == expert and mention.certainty == most:
                path = path[: mention.start] + _counterpart(path[mention.start : mention.end], mention.word) + path[mention.end :]
        return path

    def _expert_against(self, other: "Name") -> str | None:
        """The expert that this name says where the other says the opposite; None unless they differ, and in one direction only."""
        differing = {mine.expert for mine, theirs in zip(self.mentions, other.mentions, strict=True) if mine.expert != theirs.expert}
        return differing.pop() if len(differing) == 1 else None

    def _segments(self) -> list[tuple[int, int]]:
        """(start, end) of the file's name and of its folders, the innermost first."""
        return [match.span() for match in re.finditer(r"[^/]+", self.path)][::-1]


def other_expert(expert: str) -> str:
    return "low" if expert == "high" else "high"


def with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def parse_name(path: str) -> Name:
    path = with_slashes(path)
    mentions = [mention for segment in re.finditer(r"[^/]+", path) for mention in _mentions(path, *segment.span())]
    return Name(path, tuple(sorted(mentions, key=lambda mention: mention.start)))


def expert_in_name(path: str) -> str | None:
    """"high", "low", or None when the name says neither or both, or is in doubt."""
    return parse_name(path).expert()


def likely_pair(files: Sequence[str]) -> tuple[str | None, str | None]:
    """The first high-noise file, text-to-video before others, and its low-noise partner; None for what is not there."""
    names = [parse_name(file) for file in files]
    listed = {name.path: file for name, file in zip(names, files, strict=True)}
    pairs = [(listed[name.path], listed[path]) for name in names for expert, path in name.partners(names) if expert == "high"]
    alone = tuple(next((listed[name.path] for name in names if name.expert() == expert), None) for expert in EXPERTS)
    return min(pairs, key=lambda pair: "t2v" not in pair[0].lower(), default=(alone[0], alone[1]))


def swapped_names_warning(high_noise_model: str, low_noise_model: str) -> str | None:
    """A warning when a file name contradicts the slot it stands in."""
    if expert_in_name(high_noise_model) == "low" or expert_in_name(low_noise_model) == "high":
        return (f"high_noise_model is '{high_noise_model}' and low_noise_model is '{low_noise_model}': by their names they are swapped. "
                "The video will be poor unless the names are wrong.")
    return None


def _mentions(path: str, start: int, end: int) -> list[Mention]:
    """The mentions in one file or folder name; words end at case changes, digits and punctuation."""
    words = list(_WORD.finditer(path, start, end))
    if end == len(path) and (suffix := _SUFFIX.search(path, start)):  # which is no word of the name
        words = [word for word in words if word.start() < suffix.start()]
    chinese = (Mention(*match.span(), match[0], CHINESE[match[0][0]], Certainty.SURE) for match in _CHINESE.finditer(path, start, end))
    return [*chinese, *(mention for index in range(len(words)) if (mention := _mention(path, words, index)))]


def _mention(path: str, words: Sequence[re.Match[str]], index: int) -> Mention | None:
    word, text = words[index], words[index][0].lower()
    following = words[index + 1] if index + 1 < len(words) else None
    before = words[index - 1][0].lower() if index else ""
    expert = WORDS.get(text) or SHORT.get(text)
    if expert and following and following[0].lower() == "noise":
        return Mention(word.start(), following.end(), word[0], expert, Certainty.SURE)
    if text in NOISE_WORDS:
        return Mention(*word.span(), word[0], NOISE_WORDS[text], Certainty.SURE)
    if text in INITIALS and _stands_alone(path, word):
        return Mention(*word.span(), word[0], INITIALS[text], Certainty.LIKELY if word[0].isupper() else Certainty.PERHAPS)
    if text in LETTERS and _stands_alone(path, word):
        return Mention(*word.span(), word[0], LETTERS[text], Certainty.PERHAPS)
    if text not in WORDS or following and THINGS[text].fullmatch(following[0].lower()):
        return None
    return Mention(*word.span(), word[0], text, _certainty(path, word, following, before))


def _certainty(path: str, word: re.Match[str], following: re.Match[str] | None, before: str) -> Certainty:
    """Of "high" or "low" without "noise": likely where the name ends there but for versions and sizes, is shouted, or speaks of Wan 2.2."""
    ends = following is None or following[0].isdigit() or len(following[0]) == 1 or TAGS.fullmatch(following[0].lower()) is not None
    file = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    shouted = word[0].isupper() and re.search("[a-z]", file)
    return Certainty.LIKELY if (ends or shouted or _WAN22.search(file)) and not COMPOUNDS.fullmatch(before) else Certainty.PERHAPS


def _stands_alone(path: str, word: re.Match[str]) -> bool:
    around = path[max(0, word.start() - 1) : word.start()] + path[word.end() : word.end() + 1]
    return not any(character.isalnum() for character in around)


def _counterpart(mention: str, word: str) -> str:
    """The mention as the other half of a pair has it, in the same case."""
    if word[0] in CHINESE:
        return next(character for character in CHINESE if character != word[0]) + mention[1:]
    other = COUNTERPARTS[word.lower()]
    other = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return mention.replace(word, other, 1)
