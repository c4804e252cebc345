"""Who leaves the GPU first when the experts need it: idle models before experts, the finished expert before any other."""

from collections.abc import Callable
from typing import Any, TypeAlias

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import torch

Model: TypeAlias = "comfy.model_patcher.ModelPatcher"
Conds = dict[str, Any]


def make_room_for(experts: list[Model], noise_shape: torch.Size, conds: Conds) -> None:
    """Before the first step: text encoder, VAE and other idle models leave, as far as these experts want their memory."""
    ours = [expert.model for expert in experts]
    _unload(lambda model: model not in ours, experts, noise_shape, conds)


def make_room_at_switch(done: Model, coming: Model, noise_shape: torch.Size, conds: Conds) -> None:
    """At the switch: the expert that has done its steps leaves, as far as the next one wants its memory."""
    if done.model is not coming.model:
        _unload(lambda model: model is done.model, [coming], noise_shape, conds)


def _unload(may_leave: Callable[[Any], bool], coming: list[Model], noise_shape: torch.Size, conds: Conds) -> None:
    if any(_pages_by_itself(expert) for expert in coming):
        return
    weights = sum(expert.model_size() - expert.loaded_size() for expert in coming)
    activations, _ = comfy.sampler_helpers.estimate_memory(coming[0], noise_shape, conds)
    stay = [loaded for loaded in comfy.model_management.current_loaded_models if loaded.model is None or not may_leave(loaded.model.model)]
    comfy.model_management.free_memory(weights + activations, coming[0].load_device, keep_loaded=stay)


def _pages_by_itself(model: Model) -> bool:
    """Newer ComfyUI versions can load weights on demand, layer by layer; then nothing has to leave as a whole."""
    return getattr(model, "is_dynamic", lambda: False)()
