"""What ComfyUI adds to a model's weights for a LoRA file: core's weight adapters, and ours, on a clone of the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.lora
import torch

from ...engine.lora.adapters import PLAIN
from ...engine.lora.normal_form import Part
from .adapters import DoRA, Replacement, Rotation, StackedLowRank, is_plain_low_rank
from .memory import Model
from .on_the_fly import add_on_the_fly, is_quantised

MODEL_PREFIX = "diffusion_model."
MODULATION = "modulation"
PARAMETERS = (MODULATION, ".bias")  # modules of the form that are parameters themselves
Patch = Any  # a weight adapter, or ("diff", (tensor,))
Patches = list[tuple[str, Patch]]  # by the key of the parameter


def patches_of(part: Part) -> Patches:
    """Adapters and plain differences for every module, with the key of the parameter that each changes."""
    patches: Patches = []
    for module, roles in part.modules.items():
        path = f"{MODEL_PREFIX}{module}"
        weight = path if module.endswith(PARAMETERS) else f"{path}.weight"
        adapter = _adapter(path, roles)
        patches += [(weight, DoRA(set(), (adapter, roles["dora_scale"])) if "dora_scale" in roles else adapter)] if adapter is not None else []
        patches += [(weight, ("diff", (roles["diff"],)))] if "diff" in roles else []
        patches += [(weight, Replacement(set(), (roles["set_weight"],)))] if "set_weight" in roles else []
        patches += [(f"{path}.bias", ("diff", (roles["diff_b"],)))] if "diff_b" in roles else []
    return patches


def _adapter(path: str, roles: Mapping[str, torch.Tensor]) -> Patch | None:
    """Core's adapter for the tensors of a module, or ours; None where there are plain differences alone."""
    if "oft_blocks" in roles:
        rescale = [roles["rescale"]] if "rescale" in roles else []
        return Rotation(set(), (roles["oft_blocks"], *rescale, float(roles.get("alpha", 0.0))))
    tensors = {f"{path}.{role}": tensor for role, tensor in roles.items() if role not in PLAIN and role != "dora_scale"}
    return comfy.lora.load_lora(tensors, {path: path}, log_missing=False).get(path)


def patched(model: Model, strengths: Sequence[tuple[float, Patches]], merged: bool = False) -> Model:
    """A clone with all patches; plain low-rank ones of several files on one weight become one. Beside a quantised weight they are added on the fly,
    unless it shall be `merged`."""
    clone = model.clone()
    low_rank: dict[str, list[tuple[float, Any]]] = {}
    for scale, patches in strengths:
        for key, patch in patches:
            if is_plain_low_rank(patch):
                low_rank.setdefault(key, []).append((scale, patch))
        for layer in _layers([(key, patch) for key, patch in patches if not is_plain_low_rank(patch)]):
            clone.add_patches(layer, scale)
    stacks = {key: StackedLowRank.of(stack) for key, stack in low_rank.items()}
    beside = {} if merged else {key: stack for key, stack in stacks.items() if is_quantised(model, key)}
    if len(beside) < len(stacks):
        clone.add_patches({key: stack for key, stack in stacks.items() if key not in beside}, 1.0)
    if beside:
        add_on_the_fly(clone, beside)
    return clone


def of_quantised_layers(model: Model, patches: Patches) -> tuple[int, int]:
    """How many patches of quantised layers can be added on the fly, and how many are only merged."""
    quantised = [patch for key, patch in patches if is_quantised(model, key)]
    plain = sum(is_plain_low_rank(patch) for patch in quantised)
    return plain, len(quantised) - plain


def _layers(patches: Patches) -> list[dict[str, Patch]]:
    """The patches in as few tables as there are patches on one key: each call of add_patches lists the whole model."""
    layers: list[dict[str, Patch]] = []
    for key, patch in patches:
        free = next((layer for layer in layers if key not in layer), None)
        if free is None:
            layers.append(free := {})
        free[key] = patch
    return layers
