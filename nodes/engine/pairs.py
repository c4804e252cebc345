"""Which of the two experts a file name speaks of."""

import re

_HIGH = re.compile(r"high(?![a-z])|high_?noise|(?<![a-z0-9])h(?![a-z0-9])", re.IGNORECASE)
_LOW = re.compile(r"low(?![a-z])|low_?noise|(?<![a-z0-9])l(?![a-z0-9])", re.IGNORECASE)


def expert_in_name(name: str) -> str | None:
    """"high", "low", or None when the name says neither or both."""
    high, low = bool(_HIGH.search(name)), bool(_LOW.search(name))
    if high == low:
        return None
    return "high" if high else "low"


def swapped_names_warning(high_noise_model: str, low_noise_model: str) -> str | None:
    """A warning when a file name contradicts the slot it stands in."""
    if expert_in_name(high_noise_model) == "low" or expert_in_name(low_noise_model) == "high":
        return (f"high_noise_model is '{high_noise_model}' and low_noise_model is '{low_noise_model}': by their names they are swapped. "
                "The video will be poor unless the names are wrong.")
    return None
