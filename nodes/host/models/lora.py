"""Put LoRAs on the experts: files read once, core's weight adapters, patches on clones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.weight_adapter
import folder_paths
import torch

from ...engine.lora.normal_form import LoraError, NormalForm, Part, Shape, normal_form
from ...engine.lora.read import read_lora
from ...engine.lora.report import describe
from ...engine.lora.routing import LoraChoice, Route, other_expert, routes
from ...engine.model_files import missing_file
from ..messages import counted
from .memory import Model

MODEL_PREFIX = "diffusion_model."
Patch = Any  # a weight adapter, or ("diff", (tensor,))


def lora_path(name: str) -> Path:
    """Path of a LoRA file; LoraError when it is not there."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise LoraError(missing_file("loras", name))
    return Path(path)


def apply(high: Model, low: Model, choices: Sequence[LoraChoice]) -> tuple[Model, Model, list[str], list[str]]:
    """Clones of both experts with the LoRAs on them, report lines and warnings. LoraError before anything is patched."""
    models = {"high": high, "low": low}
    shapes = {expert: model_shapes(model) for expert, model in models.items()}
    library = Library(shapes)
    routed, warnings = _route(choices, library)
    strengths: dict[str, list[tuple[float, dict[str, Patch]]]] = {"high": [], "low": []}
    lines = []
    for route in counted(routed):
        form = library.form(route.name, route.expert)
        part = form.for_expert(route.expert)
        if part is None:
            other = other_expert(route.expert)
            raise LoraError(f"{route.name}: it holds tensors for the {other}-noise expert only. Set transformer to {other} or auto.")
        lines.append(describe(route, form, part))
        if route.scale:
            strengths[route.expert].append((route.scale, library.patches(part)))
    patched = {expert: _patched(model, strengths[expert]) for expert, model in models.items()}
    return patched["high"], patched["low"], lines, warnings


def model_shapes(model: Model) -> dict[str, Shape]:
    """Parameter shapes of the transformer. Not those of its state dict: GGUF layers show their packed bytes there."""
    return {key: tuple(parameter.shape) for key, parameter in model.model.diffusion_model.named_parameters()}


class Library:
    """The files of one stack: each is read from disk once, parsed once, and turned into adapters once, whatever number of experts uses it."""

    def __init__(self, shapes: dict[str, dict[str, Shape]]) -> None:
        self.shapes = shapes
        self.same_shapes = shapes["high"] == shapes["low"]
        self._forms: dict[tuple[str, str], NormalForm] = {}
        self._patches: dict[int, tuple[Part, dict[str, Patch]]] = {}

    def form(self, name: str, expert: str) -> NormalForm:
        key = (name, "both" if self.same_shapes else expert)
        if key not in self._forms:
            tensors, metadata = read_lora(lora_path(name))
            self._forms[key] = normal_form(tensors, metadata, self.shapes[expert], name)
        return self._forms[key]

    def patches(self, part: Part) -> dict[str, Patch]:
        if id(part) not in self._patches:
            self._patches[id(part)] = part, _adapters(part)
        return self._patches[id(part)][1]


def _route(choices: Sequence[LoraChoice], library: Library) -> tuple[list[Route], list[str]]:
    files = folder_paths.get_filename_list("loras")
    chosen = [choice.name for choice in choices]
    routed: list[Route] = []
    warnings: list[str] = []
    for choice in choices:
        of_file, warning = routes(choice, library.form(choice.name, "high").holds_both_experts, files, chosen)
        routed += of_file
        warnings += [warning] if warning else []
    return routed, warnings


def _adapters(part: Part) -> dict[str, Patch]:
    """Core's adapters for every module, by the key of the weight they change."""
    flat = {f"{MODEL_PREFIX}{module}.{role}": tensor for module, roles in part.modules.items() for role, tensor in roles.items()
            if role != "dora_scale"}
    weights = {f"{MODEL_PREFIX}{module}": f"{MODEL_PREFIX}{module}{'' if module.endswith('modulation') else '.weight'}" for module in part.modules}
    patches: dict[str, Patch] = comfy.lora.load_lora(flat, weights, log_missing=False)
    for module, roles in part.modules.items():
        key = weights[f"{MODEL_PREFIX}{module}"]
        if "dora_scale" in roles and key in patches:
            patches[key] = DoRA(patches[key], roles["dora_scale"])
    return patches


def _patched(model: Model, strengths: Sequence[tuple[float, dict[str, Patch]]]) -> Model:
    """A clone with all patches; plain low-rank ones of several files on one weight become one."""
    clone = model.clone()
    low_rank: dict[str, list[tuple[float, Any]]] = {}
    for scale, patches in strengths:
        others = {}
        for key, patch in patches.items():
            if _is_plain_low_rank(patch):
                low_rank.setdefault(key, []).append((scale, patch))
            else:
                others[key] = patch
        if others:
            clone.add_patches(others, scale)
    if low_rank:
        clone.add_patches({key: StackedLowRank(stack) for key, stack in low_rank.items()}, 1.0)
    return clone


def _is_plain_low_rank(patch: Patch) -> bool:
    """Two matrices and no more, for a weight that is a matrix."""
    if not isinstance(patch, comfy.weight_adapter.LoRAAdapter):
        return False
    up, down, _, mid, dora_scale, reshape = patch.weights
    return mid is None and dora_scale is None and reshape is None and up.ndim == down.ndim == 2


class StackedLowRank(comfy.weight_adapter.WeightAdapterBase):
    """The plain low-rank factors of several files on one weight: sum_i s_i * up_i @ down_i as one product, factors kept as the files have them."""

    name = "stacked lora"

    def __init__(self, stack: Sequence[tuple[float, Any]]) -> None:
        self.scales = [scale * (alpha / down.shape[0] if alpha is not None else 1.0) for scale, (_, down, alpha) in
                       ((scale, adapter.weights[:3]) for scale, adapter in stack)]
        self.weights = tuple(tensor for _, adapter in stack for tensor in adapter.weights[:2])
        self.loaded_keys: set[str] = set()

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        factors = [comfy.model_management.cast_to_device(tensor, weight.device, weight.dtype) for tensor in self.weights]
        up = torch.cat([factor * (strength * scale) for factor, scale in zip(factors[::2], self.scales, strict=True)], dim=1)
        return weight.addmm_(up, torch.cat(factors[1::2]))


class DoRA(comfy.weight_adapter.WeightAdapterBase):
    """Weight-decomposed adaptation (Liu et al. 2024): m * (W + dW) / |W + dW|, blended by strength.

    Core takes the norm of W alone where m belongs to the outputs; PEFT and LyCORIS, which train these files, take that of W + dW.
    """

    name = "dora"

    def __init__(self, inner: Any, magnitude: torch.Tensor) -> None:
        self.inner, self.magnitude = inner, magnitude
        self.loaded_keys, self.weights = inner.loaded_keys, (*inner.weights, magnitude)

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: Any, function: Any,
                         intermediate_dtype: torch.dtype = torch.float32, original_weight: Any = None) -> torch.Tensor:
        nothing = torch.zeros_like(weight)
        change = self.inner.calculate_weight(nothing, key, 1.0, strength_model, offset, function, intermediate_dtype, original_weight)
        merged = weight + change
        magnitude = comfy.model_management.cast_to_device(self.magnitude, weight.device, weight.dtype).flatten()
        rows = merged.reshape(merged.shape[0], -1)
        by_output = magnitude.numel() == rows.shape[0] and not (self.magnitude.ndim > 1 and self.magnitude.shape[0] == 1)
        norm = rows.norm(dim=1, keepdim=True) if by_output else rows.norm(dim=0, keepdim=True)
        magnitude = magnitude[:, None] if by_output else magnitude[None]
        target = (rows * (magnitude / (norm + torch.finfo(weight.dtype).eps))).reshape(weight.shape)
        weight += strength * (target - weight)
        return weight
