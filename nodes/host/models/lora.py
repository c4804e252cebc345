"""Put LoRAs on the experts: files read once, core's weight adapters, patches on clones."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import folder_paths

from ...engine.lora.about import about
from ...engine.lora.normal_form import LoraError, NormalForm, Part, Shape, normal_form
from ...engine.lora.read import read_lora
from ...engine.lora.report import describe
from ...engine.lora.routing import Half, LoraChoice, Routing, routes
from ...engine.model_files import missing_file
from ...engine.pairs import EXPERTS, other_expert
from ...engine.sampling.plan import EXPERT_NAMES
from ...engine.spans import LoraSpan, LoraSpans
from ..messages import counted
from .files import listed_name
from .lora_spans import TimedLora, timed_loras, with_timed_loras
from .memory import Model, loads_on_demand
from .patches import MODULATION, Patches, of_quantised_layers, patched, patches_of

MODULATION_LEFT_OUT = ("this ComfyUI leaves differences of the modulation out while it loads weights on demand. "
                       "Start it with --disable-dynamic-vram to have them.")
MISSING_HALVES = "wan22_missing_halves"  # a model that goes without half of a pair says so here


def lora_path(name: str) -> Path:
    """Path of a LoRA file, with either slash in its name; LoraError when it is not there."""
    path = folder_paths.get_full_path("loras", listed_name("loras", name))
    if path is None:
        raise LoraError(missing_file("loras", name))
    return Path(path)


def apply(high: Model, low: Model, choices: Sequence[LoraChoice], merged: bool = False) -> tuple[Model, Model, list[str], list[str]]:
    """Clones of both experts with the LoRAs on them, report lines and warnings. LoraError before anything is patched.

    Into quantised weights LoRAs are merged where `merged` says so or where they cannot be added on the fly. The lines say what each file did to each
    expert, then what its trainer says of it.
    """
    models = {"high": high, "low": low}
    library = Library({expert: model_shapes(model) for expert, model in models.items()})
    routings = _route(choices, library)
    whole: dict[str, list[tuple[float, Patches]]] = {expert: [] for expert in EXPERTS}
    timed: dict[str, list[TimedLora]] = {expert: [] for expert in EXPERTS}
    lines = []
    for route, span in counted([(route, choice.span) for choice, routing in zip(choices, routings, strict=True) for route in routing.routes]):
        form = library.form(route.name, route.expert)
        part = form.for_expert(route.expert)
        if part is None:
            other = other_expert(route.expert)
            raise LoraError(f"{route.name}: it holds tensors for the {other}-noise expert only. Set transformer to {other} or auto.")
        lines.append(describe(route, form, part, span))
        if not route.scale:
            continue
        patches = library.patches(part)
        lines[-1] += _in_quantised_layers(models[route.expert], patches, merged)
        if span.is_whole:
            whole[route.expert].append((route.scale, patches))
        else:
            timed[route.expert].append(TimedLora(LoraSpan(route.name, span), route.scale, patches, merged))
    halves = [routing.half for routing in routings if routing.half]
    made = {expert: with_timed_loras(_with_note(patched(model, whole[expert], merged), expert, halves), timed[expert])
            for expert, model in models.items()}
    warnings = [routing.warning for routing in routings if routing.warning]
    return made["high"], made["low"], lines + library.notes(), warnings + _left_out(made.values())


def spans_by_name(choices: Sequence[LoraChoice]) -> LoraSpans:
    """When each expert will have which LoRA of some steps only, by the names of the files: a file whose keys name an expert may go elsewhere."""
    files, chosen = folder_paths.get_filename_list("loras"), [choice.name for choice in choices]
    routed = [(route, choice.span) for choice in choices if choice.scale and not choice.span.is_whole
              for route in routes(choice, (), files, chosen).routes]
    return {high: [LoraSpan(route.name, span) for route, span in routed if route.expert == name] for high, name in EXPERT_NAMES.items()}


def missing_halves(high: Model, low: Model) -> list[str]:
    """For each pair of which one file is missing, a sentence for the schedule: which expert goes without what."""
    return [note for model in (high, low) for note in model.attachments.get(MISSING_HALVES, ())]


def _in_quantised_layers(model: Model, patches: Patches, merged: bool) -> str:
    """For the report: how many of the patches stay beside quantised layers, and how many are merged into them. Empty for other experts."""
    plain, others = of_quantised_layers(model, patches)
    beside, inside = (0, plain + others) if merged else (plain, others)
    return "".join([f", {beside} beside quantised layers on the fly" if beside else "", f", {inside} merged into quantised layers" if inside else ""])


def _left_out(models: Iterable[Model]) -> list[str]:
    """ComfyUI 0.30.0 patches no parameter that belongs to a block itself while it loads weights on demand."""
    on_demand = [model for model in models if loads_on_demand(model)]
    keys = [key for model in on_demand for key in (*model.patches, *(key for lora in timed_loras(model) for key, _ in lora.patches))]
    return [MODULATION_LEFT_OUT] if any(key.endswith(MODULATION) for key in keys) else []


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
        self._notes: dict[str, str] = {}

    def form(self, name: str, expert: str) -> NormalForm:
        key = (name, "both" if self.same_shapes else expert)
        if key not in self._forms:
            tensors, metadata = read_lora(lora_path(name))
            self._forms[key] = normal_form(tensors, metadata, self.shapes[expert], name)
            self._notes[name] = about(name, metadata)
        return self._forms[key]

    def notes(self) -> list[str]:
        """What the metadata of each file says to whoever uses it, a line each."""
        return [note for note in self._notes.values() if note]

    def patches(self, part: Part) -> Patches:
        if id(part) not in self._patches:
            self._patches[id(part)] = part, patches_of(part)
        return self._patches[id(part)][1]


def _route(choices: Sequence[LoraChoice], library: Library) -> list[Routing]:
    files = folder_paths.get_filename_list("loras")
    chosen = [choice.name for choice in choices]
    return [routes(choice, library.form(choice.name, "high").named_experts, files, chosen) for choice in choices]
