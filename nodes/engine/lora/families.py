"""How trainers spell the module names of a Wan transformer, and how a spelled name leads back to the model's own.

One table of wrappers, which are peeled off in any order, and one of diffusers' renamings. Dots and underscores count the same: only the model's own
list says where a word ends.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Wrapper:
    """A word that stands before module names; `family` where it tells who wrote the file, `expert` where it names one of the two."""

    word: str
    family: str = ""
    expert: str | None = None


WRAPPERS = (
    Wrapper("lora_unet_", "Wan-Fun"),  # "lora_unet__blocks_0"
    Wrapper("lora_unet", "kohya / musubi-tuner"),
    Wrapper("lora_transformer_2", "OneTrainer", "low"),
    Wrapper("lora_transformer", "OneTrainer"),
    Wrapper("lycoris", "LyCORIS"),
    Wrapper("base_model", "PEFT"),
    Wrapper("pipe", "DiffSynth"),
    Wrapper("dit2", "DiffSynth", "low"),
    Wrapper("dit_2", "DiffSynth", "low"),
    Wrapper("dit", "DiffSynth"),
    Wrapper("transformer_2", "diffusers", "low"),
    Wrapper("transformer", "diffusers"),
    Wrapper("diffusion_model", "diffusion-pipe / ai-toolkit"),
    *(Wrapper(f"{expert}{noise}", "official names", expert) for expert in ("high", "low") for noise in ("_noise", "noise", "")),
    *(Wrapper(word) for word in ("model", "models", "diffusion", "unet", "net", "network", "lora", "expert", "wan", "generator", "student",
                                 "denoiser", "backbone", "ema", "pipeline", "video", "engine", "transformer_1", "dit1", "inner_model",
                                 "wrapped_model", "state_dict")),
)
BARE = "bare names"
# Words that torch.compile, FSDP, activation checkpoints, DDP, PEFT and diffusers put before a name or into it
INSERTED = re.compile(r"_+(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module|flat_param|forward_module|module|base_layer|"
                      "processor|default)(?=_)")

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


@dataclass(frozen=True)
class Spelled:
    """The model's own name of a module, and what the words around it said."""

    module: str
    family: str = BARE
    expert: str | None = None


def diffusers_name(module: str) -> str:
    for pattern, replacement in DIFFUSERS_NAMES:
        module = pattern.sub(replacement, module)
    return module


def flat(path: str) -> str:
    """A spelled path with underscores for dots, without the words that are put into it."""
    return INSERTED.sub("", f"_{path.replace('.', '_')}_").strip("_")


class Spellings:
    """Every spelling of the modules that one model has."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.modules: dict[str, str] = {}
        for module in modules:
            for spelled in (module, diffusers_name(module), diffusers_name(module).removesuffix(".0")):
                self.modules.setdefault(flat(spelled), module)

    def resolve(self, path: str) -> Spelled | None:
        """What a spelled path stands for once its wrappers are peeled off; None where no module of the model is left."""
        pending = [(flat(path), Spelled(""))]
        seen = set()
        for rest, wrapped in pending:
            if module := self.modules.get(rest):
                return Spelled(module, wrapped.family, wrapped.expert)
            for wrapper in WRAPPERS:
                inner = rest[len(wrapper.word) + 1 :].lstrip("_")
                if rest.startswith(f"{wrapper.word}_") and inner not in seen:
                    seen.add(inner)
                    pending.append((inner, _within(wrapped, wrapper)))
        return None


def _within(outer: Spelled, wrapper: Wrapper) -> Spelled:
    """The outermost word tells the family, the innermost one the expert."""
    return Spelled("", wrapper.family or BARE if outer.family == BARE else outer.family, wrapper.expert or outer.expert)
