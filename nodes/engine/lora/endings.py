"""How the keys of LoRA files end: what part of an adapter a tensor is."""

import re
from dataclasses import dataclass, replace

from ..pairs import expert_in_name
from .families import Spelled, Spellings

ADAPTER = r"(?:\.(?P<adapter>(?!bias$)[\w-]+))?"  # PEFT writes the adapter's name into the key: lora_A.default.weight
WEIGHT = r"(?:[._]weight)?"
LORA = r"lora(?:[._](?:linear_layer|layer|default))?[._]"


@dataclass(frozen=True)
class Ending:
    """An ending of keys, after a dot or an underscore; the role, as ComfyUI's weight adapters call it; and what it adds to the module's name."""

    pattern: str
    role: str
    inner: str = ""


# The first match is final.
ENDINGS = tuple((re.compile(f"[._](?:{ending.pattern})$"), ending) for ending in (
    Ending(rf"{LORA}(?:up|[Bb]){ADAPTER}[._]bias", "up_bias"),
    Ending(rf"{LORA}(?:down|[Aa]){ADAPTER}{WEIGHT}", "lora_down.weight"),
    Ending(rf"{LORA}(?:up|[Bb]){ADAPTER}{WEIGHT}", "lora_up.weight"),
    Ending(rf"{LORA}mid{ADAPTER}{WEIGHT}", "lora_mid.weight"),
    Ending(rf"(?:lora_magnitude_vector|dora_scale){ADAPTER}{WEIGHT}", "dora_scale"),
    Ending(rf"(?:lora_)?alpha{ADAPTER}", "alpha"),
    Ending(rf"hada_(w1_a|w1_b|w2_a|w2_b|t1|t2){ADAPTER}{WEIGHT}", r"hada_\1"),
    Ending(rf"lokr_(w1_a|w1_b|w2_a|w2_b|w1|w2|t1|t2){ADAPTER}{WEIGHT}", r"lokr_\1"),
    Ending(rf"([ab][12]|bm){ADAPTER}{WEIGHT}", r"\1.weight"),
    Ending(rf"(oft_blocks|rescale){ADAPTER}{WEIGHT}", r"\1"),
    Ending(rf"(?:diff_b|b_norm){WEIGHT}", "diff_b"),
    Ending(rf"diff_m{WEIGHT}", "diff", ".modulation"),
    Ending(rf"(?:diff|w_norm){WEIGHT}", "diff"),
    Ending(r"set_weight", "set_weight"),
))


@dataclass(frozen=True)
class Key:
    """A key of a file that belongs to a module of the model."""

    spelled: Spelled
    role: str


def parse(key: str, spellings: Spellings) -> Key | None:
    """None for a key without a known ending, or of a module that the model does not have."""
    for pattern, ending in ENDINGS:
        match = pattern.search(key)
        if match:
            path = key[: match.start()]
            spelled = spellings.resolve(path.removesuffix(ending.inner) + ending.inner if ending.inner else path)
            return Key(_with_expert_of_adapter(spelled, match), match.expand(ending.role)) if spelled else None
    return None


def _with_expert_of_adapter(spelled: Spelled, match: re.Match[str]) -> Spelled:
    """An adapter's name may tell the expert where nothing else does: lora_A.high_noise.weight."""
    adapter = match.groupdict().get("adapter")
    return replace(spelled, expert=expert_in_name(adapter)) if adapter and not spelled.expert else spelled
