"""Which of the two experts a file name speaks of."""

import re
from collections.abc import Sequence

SPELLINGS = {"high": {"high", "highnoise", "hinoise"}, "low": {"low", "lownoise"}}
LETTERS = {"h": "high", "l": "low"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LETTER = re.compile(r"(?<![A-Za-z0-9])[hlHL](?![A-Za-z0-9])")


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _mentions(name: str) -> list[tuple[int, int, str]]:
    """(start, end, expert) of every word that says an expert; words end at case changes, digits and punctuation."""
    words = [(match, next((expert for expert, spelled in SPELLINGS.items() if match[0].lower() in spelled), None)) for match in _WORD.finditer(name)]
    letters = [(match, LETTERS[match[0].lower()]) for match in _LETTER.finditer(name)]
    return [(match.start(), match.end(), expert) for match, expert in (*words, *letters) if expert]


def expert_in_name(path: str) -> str | None:
    """"high", "low", or None when the file name says neither or both."""
    experts = {expert for _, _, expert in _mentions(_file_name(path))}
    return experts.pop() if len(experts) == 1 else None


def without_expert(path: str) -> str:
    """The path with the words for the expert, and the rank, which pairs may differ in, taken out."""
    name = _file_name(path)
    folder = path[: len(path) - len(name)]
    for start, end, _ in sorted(_mentions(name), reverse=True):
        name = f"{name[:start]}*{name[end:]}"
    return folder + re.sub(r"rank_?\d+", "rank", name.lower())


def likely_pair(files: Sequence[str]) -> tuple[str | None, str | None]:
    """The first high-noise file, text-to-video before others, and its low-noise partner; None for what is not there."""
    high, low = ([file for file in files if expert_in_name(file) == expert] for expert in ("high", "low"))
    pairs = [(one, other) for one in high for other in low if without_expert(one) == without_expert(other)]
    alone = next(iter(high), None), next(iter(low), None)
    return min(pairs, key=lambda pair: "t2v" not in _file_name(pair[0]).lower(), default=alone)


def swapped_names_warning(high_noise_model: str, low_noise_model: str) -> str | None:
    """A warning when a file name contradicts the slot it stands in."""
    if expert_in_name(high_noise_model) == "low" or expert_in_name(low_noise_model) == "high":
        return (f"high_noise_model is '{high_noise_model}' and low_noise_model is '{low_noise_model}': by their names they are swapped. "
                "The video will be poor unless the names are wrong.")
    return None
