"""GPU memory: who leaves first when the experts need it (idle models, then the finished expert), and what an out-of-memory error looks like."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import torch

Model: TypeAlias = "comfy.model_patcher.ModelPatcher"
Conds = dict[str, Any]


def make_room_for(experts: list[Model], noise_shape: torch.Size, conds: Conds) -> None:
    """Before the first step: text encoder, VAE and other idle models leave each device, as far as the experts that are for it want its memory."""
    ours = [expert.model for expert in experts]
    for device in dict.fromkeys(expert.load_device for expert in experts):
        _free_room(lambda model: model not in ours, [expert for expert in experts if expert.load_device == device], noise_shape, conds)


def make_room_at_switch(done: Model, coming: Model, noise_shape: torch.Size, conds: Conds) -> None:
    """At the switch: the expert that has done its steps leaves, as far as the next one wants its memory. On another device it stays."""
    if done.model is not coming.model and done.load_device == coming.load_device:
        _free_room(lambda model: model is done.model, [coming], noise_shape, conds)


def _free_room(may_leave: Callable[[Any], bool], coming: list[Model], noise_shape: torch.Size, conds: Conds) -> None:
    """Room as core's load_models_gpu asks for it a moment later: asking for less would only let core choose who leaves.

    Its estimate for activations is well above what a run takes, the two latents of acceleration included (docs/memory.md).
    """
    device = coming[0].load_device
    if shares_memory(device) or any(loads_on_demand(expert) for expert in coming):
        return
    management = comfy.model_management
    weights = sum(model.model_size() - model.loaded_size() for expert in coming for model in (expert, *expert.get_nested_additional_models()))
    activations, _ = comfy.sampler_helpers.estimate_memory(coming[0], noise_shape, conds)
    needed = 1.1 * weights + max(management.minimum_inference_memory(), activations + management.extra_reserved_memory())
    stay = [loaded for loaded in management.current_loaded_models if loaded.model is None or not may_leave(loaded.model.model)]
    management.free_memory(needed, device, keep_loaded=stay)


def shares_memory(device: torch.device) -> bool:
    """On the CPU, models are loaded where they rest: unloading frees nothing."""
    return device.type == "cpu"


def loads_on_demand(model: Model) -> bool:
    """Newer ComfyUI versions can load weights on demand, layer by layer; then nothing has to leave as a whole."""
    return getattr(model, "is_dynamic", lambda: False)()


def keep_loaded(model: Model, activations: float) -> None:
    """Bring a model that streams back to its device when another one took its place since; `activations` in bytes. Cheap when nothing happened."""
    for loaded in comfy.model_management.current_loaded_models:
        here = loaded.model is not None and loaded.model.model is model.model
        if here and (loads_on_demand(model) or loaded.model_loaded_memory() >= loaded.model_memory()):
            return
    comfy.model_management.load_models_gpu([model], memory_required=activations, force_full_load=True)


def unload(model: Model) -> None:
    """Take a model out of memory now, and out of ComfyUI's list."""
    management = comfy.model_management
    for loaded in [loaded for loaded in management.current_loaded_models if loaded.model is model]:
        loaded.model_unload()
        management.current_loaded_models.remove(loaded)
    management.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Newer ComfyUI versions know more kinds of this error than one class."""
    management = comfy.model_management
    return management.is_oom(error) if hasattr(management, "is_oom") else isinstance(error, management.OOM_EXCEPTION)


def on_device(device: torch.device) -> AbstractContextManager[None]:
    """Make `device` the current one where ComfyUI does so (not yet in 0.3.75)."""
    context: Callable[[torch.device], AbstractContextManager[None]] = getattr(comfy.model_management, "cuda_device_context", lambda _: nullcontext())
    return context(device)
