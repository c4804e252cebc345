"""How trainers spell the module names of a Wan transformer, and how a spelled name leads back to the model's own.

One table of prefixes, one table of diffusers' renamings; a new family is one row and one test.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Keys with `prefix`, their module names dotted or with underscores; `expert` where the prefix names one of the two."""

    name: str
    prefix: str
    underscored: bool = False
    expert: str | None = None


FAMILIES = (
    Family("Wan-Fun", "lora_unet__", underscored=True),
    Family("kohya / musubi-tuner", "lora_unet_", underscored=True),
    Family("OneTrainer", "lora_transformer_2_", underscored=True, expert="low"),
    Family("OneTrainer", "lora_transformer_", underscored=True, expert="high"),
    Family("LyCORIS", "lycoris_", underscored=True),
    Family("PEFT", "base_model.model."),
    Family("DiffSynth", "pipe.dit2.", expert="low"),
    Family("DiffSynth", "pipe.dit.", expert="high"),
    Family("diffusers", "transformer_2.", expert="low"),
    Family("diffusers", "transformer.", expert="high"),
    Family("diffusion-pipe / ai-toolkit", "model.diffusion_model."),
    Family("diffusion-pipe / ai-toolkit", "diffusion_model."),
    Family("bare names", ""),
    Family("bare names", "", underscored=True),
)

# Wan's own module names -> diffusers' (diffusers/loaders/single_file_utils.py, convert_wan_transformer_to_diffusers)
DIFFUSERS_NAMES = (
    (re.compile(r"\.self_attn\."), ".attn1."),
    (re.compile(r"\.cross_attn\."), ".attn2."),
    (re.compile(r"(attn[12])\.([qkv])$"), r"\1.to_\2"),
    (re.compile(r"(attn[12])\.o$"), r"\1.to_out.0"),
    (re.compile(r"\.ffn\.0$"), ".ffn.net.0.proj"),
    (re.compile(r"\.ffn\.2$"), ".ffn.net.2"),
    (re.compile(r"\.norm3$"), ".norm2"),
    (re.compile(r"^(time|text)_embedding\.0$"), r"condition_embedder.\1_embedder.linear_1"),
    (re.compile(r"^(time|text)_embedding\.2$"), r"condition_embedder.\1_embedder.linear_2"),
    (re.compile(r"^time_projection\.1$"), "condition_embedder.time_proj"),
    (re.compile(r"^head\.head$"), "proj_out"),
    (re.compile(r"^head\.modulation$"), "scale_shift_table"),
    (re.compile(r"\.modulation$"), ".scale_shift_table"),
)


def diffusers_name(module: str) -> str:
    for pattern, replacement in DIFFUSERS_NAMES:
        module = pattern.sub(replacement, module)
    return module


class Spellings:
    """Every spelling of the modules that one model has."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.dotted: dict[str, str] = {}
        for module in modules:
            for spelled in (module, diffusers_name(module), diffusers_name(module).removesuffix(".0")):
                self.dotted.setdefault(spelled, module)
        self.underscored = {spelled.replace(".", "_"): module for spelled, module in self.dotted.items()}

    def resolve(self, path: str) -> tuple[Family, str] | None:
        """The family of a spelled module path, prefix included, and the model's own name for the module."""
        for family in FAMILIES:
            if not path.startswith(family.prefix):
                continue
            rest = path[len(family.prefix) :]
            if family.name == "PEFT" and (inner := self.resolve(rest)):
                return Family("PEFT", family.prefix + inner[0].prefix, expert=inner[0].expert), inner[1]
            module = (self.underscored if family.underscored else self.dotted).get(rest)
            if module is not None:
                return family, module
        return None
