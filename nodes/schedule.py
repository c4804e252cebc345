"""The HTTP edge: what the pack answers beside ComfyUI's own addresses."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .engine.lora.routing import LoraChoice
from .engine.sampling.experts import BOUNDARY, OPENING_GUIDANCE, Guidance, Schedule
from .engine.sampling.plan import EXPERT_NAMES, plan_of
from .engine.spans import Span
from .host import routes
from .host.models.lora import spans_by_name
from .host.models.lora_stacks import choices_as_saved


def register() -> None:
    """Add the pack's addresses to the server, once, before it listens: ComfyUI 0.3.75 knows no later moment than the pack's entry point."""
    routes.serve("GET", "/wan22/schedule", show_schedule)


async def show_schedule(request: web.Request) -> web.Response:
    """The plan of Wan 2.2 Sampler for the settings in the query, which have the names of its widgets; those with a default may be missing.

    Status 400 with {"error": text} for a value that the node would refuse.
    """
    try:
        return web.json_response(planned(request.query))
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)


def planned(query: Mapping[str, str]) -> dict[str, Any]:
    """N+1 `sigmas`; per step its expert ("high" or "low"), its `guidance` and its model `calls`, 0 where it is forecast; `lora_changes`, what comes
    or goes by the number of the step; `all_calls` of a run that computes every step; the `boundary`; and `text`, the sentence that the node shows.

    `loras` of the query: the stack as JSON, a list of objects with the names of Wan 2.2 LoRA's widgets, or with `stack` and `scale` for a saved one.
    ValueError for a setting that is missing or out of range.
    """
    schedule = Schedule(_text(query, "solver"), _number(query, "steps", int), _number(query, "shift"), _number(query, "denoise", default=1.0))
    guidance = Guidance(_number(query, "guidance_scale"), _number(query, "guidance_scale_2"), _number(query, "opening_steps", int, default=0),
                        _number(query, "opening_guidance", default=OPENING_GUIDANCE))
    boundary = _number(query, "boundary", default=BOUNDARY)
    plan = plan_of(schedule, boundary, guidance, _text(query, "acceleration"), spans_by_name(_stack(query.get("loras", "[]"))))
    return {
        "sigmas": schedule.sigmas().tolist(),
        "experts": [EXPERT_NAMES[step.high] for step in plan.steps],
        "guidance": [step.guidance for step in plan.steps],
        "calls": plan.calls(),
        "all_calls": plan.model_calls(all_computed=True),
        "lora_changes": plan.lora_changes(),
        "boundary": boundary,
        "text": plan.describe(),
    }


def _stack(text: str) -> list[LoraChoice]:
    try:
        return [choice for entry in json.loads(text) for choice in _choices(entry)]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"loras is no list of LoRAs in JSON: {error}.") from error


def _choices(entry: Mapping[str, Any]) -> list[LoraChoice]:
    """Of a LoRA, or of a saved stack."""
    if "stack" in entry:
        return choices_as_saved(str(entry["stack"]), entry["scale"])
    return [LoraChoice(str(entry["lora"]), entry["scale"], entry["transformer"], Span(entry["first_step"], entry["last_step"]))]


def _text(query: Mapping[str, str], name: str) -> str:
    if name not in query:
        raise ValueError(f"{name} is missing.")
    return query[name]


def _number(query: Mapping[str, str], name: str, kind: type[int] | type[float] = float, default: float | None = None) -> Any:
    if name not in query and default is not None:
        return default
    text = _text(query, name)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name} is '{text}'; it must be a {'whole ' if kind is int else ''}number.") from error
