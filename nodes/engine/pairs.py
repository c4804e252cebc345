"""Which of the two experts a file name speaks of."""

import re

WORDS = {"high": {"high", "highnoise", "h"}, "low": {"low", "lownoise", "l"}}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def expert_in_name(name: str) -> str | None:
    """"high", "low", or None when the name says neither or both; words end at case changes, digits and punctuation."""
    words = {word.lower() for word in _WORD.findall(name)}
    said = [expert for expert, spellings in WORDS.items() if words & spellings]
    return said[0] if len(said) == 1 else None


def swapped_names_warning(high_noise_model: str, low_noise_model: str) -> str | None:
    """A warning when a file name contradicts the slot it stands in."""
    if expert_in_name(high_noise_model) == "low" or expert_in_name(low_noise_model) == "high":
        return (f"high_noise_model is '{high_noise_model}' and low_noise_model is '{low_noise_model}': by their names they are swapped. "
                "The video will be poor unless the names are wrong.")
    return None
