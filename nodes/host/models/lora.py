"""Put LoRAs on the experts: files read once, core's weight adapters, patches on clones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import folder_paths
import torch

from ...engine.lora.adapters import PLAIN
from ...engine.lora.normal_form import LoraError, NormalForm, Part, Shape, normal_form
from ...engine.lora.read import read_lora
from ...engine.lora.report import describe
from ...engine.lora.routing import Half, LoraChoice, Routing, routes
from ...engine.model_files import missing_file
from ...engine.pairs import other_expert
from ..messages import counted
from .adapters import DoRA, Replacement, Rotation, StackedLowRank, is_plain_low_rank
from .files import listed_name
from .memory import Model, loads_on_demand

MODEL_PREFIX = "diffusion_model."
MODULATION = "modulation"
PARAMETERS = (MODULATION, ".bias")  # modules of the form that are parameters themselves
MODULATION_LEFT_OUT = ("this ComfyUI leaves differences of the modulation out while it loads weights on demand. "
                       "Start it with --disable-dynamic-vram to have them.")
MISSING_HALVES = "wan22_missing_halves"  # a model that goes without half of a pair says so here
Patch = Any  # a weight adapter, or ("diff", (tensor,))
Patches = list[tuple[str, Patch]]  # by the key of the parameter


def lora_path(name: str) -> Path:
    """Path of a LoRA file, with either slash in its name; LoraError when it is not there."""
    path = folder_paths.get_full_path("loras", listed_name("loras", name))
    if path is None:
        raise LoraError(missing_file("loras", name))
    return Path(path)


def apply(high: Model, low: Model, choices: Sequence[LoraChoice]) -> tuple[Model, Model, list[str], list[str]]:
    """Clones of both experts with the LoRAs on them, report lines and warnings. LoraError before anything is patched."""
    models = {"high": high, "low": low}
    library = Library({expert: model_shapes(model) for expert, model in models.items()})
    routings = _route(choices, library)
    strengths: dict[str, list[tuple[float, Patches]]] = {"high": [], "low": []}
    lines = []
    for route in counted([route for routing in routings for route in routing.routes]):
        form = library.form(route.name, route.expert)
        part = form.for_expert(route.expert)
        if part is None:
            other = other_expert(route.expert)
            raise LoraError(f"{route.name}: it holds tensors for the {other}-noise expert only. Set transformer to {other} or auto.")
        lines.append(describe(route, form, part))
        if route.scale:
            strengths[route.expert].append((route.scale, library.patches(part)))
    halves = [routing.half for routing in routings if routing.half]
    patched = {expert: _with_note(_patched(model, strengths[expert]), expert, halves) for expert, model in models.items()}
    warnings = [routing.warning for routing in routings if routing.warning]
    return patched["high"], patched["low"], lines, warnings + _left_out(patched)


def missing_halves(high: Model, low: Model) -> list[str]:
    """For each pair of which one file is missing, a sentence for the schedule: which expert goes without what."""
    return [note for model in (high, low) for note in model.attachments.get(MISSING_HALVES, ())]


def _left_out(patched: Mapping[str, Model]) -> list[str]:
    """ComfyUI 0.30.0 patches no parameter that belongs to a block itself while it loads weights on demand."""
    left_out = any(key.endswith(MODULATION) for model in patched.values() if loads_on_demand(model) for key in model.patches)
    return [MODULATION_LEFT_OUT] if left_out else []


def _with_note(model: Model, expert: str, halves: Sequence[Half]) -> Model:
    """The model, with a note for each LoRA that it goes without."""
    notes = tuple(half.describe() for half in halves if half.expert == expert)
    if notes:
        model.set_attachments(MISSING_HALVES, (*model.attachments.get(MISSING_HALVES, ()), *notes))
    return model


def model_shapes(model: Model) -> dict[str, Shape]:
    """Parameter shapes of the transformer. Not those of its state dict: GGUF layers show their packed bytes there."""
    return {key: tuple(parameter.shape) for key, parameter in model.model.diffusion_model.named_parameters()}


class Library:
    """The files of one stack: each is read from disk once, parsed once, and turned into adapters once, whatever number of experts uses it."""

    def __init__(self, shapes: dict[str, dict[str, Shape]]) -> None:
        self.shapes = shapes
        self.same_shapes = shapes["high"] == shapes["low"]
        self._forms: dict[tuple[str, str], NormalForm] = {}
        self._patches: dict[int, tuple[Part, Patches]] = {}

    def form(self, name: str, expert: str) -> NormalForm:
        key = (name, "both" if self.same_shapes else expert)
        if key not in self._forms:
            tensors, metadata = read_lora(lora_path(name))
            self._forms[key] = normal_form(tensors, metadata, self.shapes[expert], name)
        return self._forms[key]

    def patches(self, part: Part) -> Patches:
        if id(part) not in self._patches:
            self._patches[id(part)] = part, _adapters(part)
        return self._patches[id(part)][1]


def _route(choices: Sequence[LoraChoice], library: Library) -> list[Routing]:
    files = folder_paths.get_filename_list("loras")
    chosen = [choice.name for choice in choices]
    return [routes(choice, library.form(choice.name, "high").named_experts, files, chosen) for choice in choices]


def _adapters(part: Part) -> Patches:
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


def _patched(model: Model, strengths: Sequence[tuple[float, Patches]]) -> Model:
    """A clone with all patches; plain low-rank ones of several files on one weight become one."""
    clone = model.clone()
    low_rank: dict[str, list[tuple[float, Any]]] = {}
    for scale, patches in strengths:
        for key, patch in patches:
            if is_plain_low_rank(patch):
                low_rank.setdefault(key, []).append((scale, patch))
        for layer in _layers([(key, patch) for key, patch in patches if not is_plain_low_rank(patch)]):
            clone.add_patches(layer, scale)
    if low_rank:
        clone.add_patches({key: StackedLowRank.of(stack) for key, stack in low_rank.items()}, 1.0)
    return clone


def _layers(patches: Patches) -> list[dict[str, Patch]]:
    """The patches in as few tables as there are patches on one key: each call of add_patches lists the whole model."""
    layers: list[dict[str, Patch]] = []
    for key, patch in patches:
        free = next((layer for layer in layers if key not in layer), None)
        if free is None:
            layers.append(free := {})
        free[key] = patch
    return layers
