"""The HTTP edge: what the pack answers beside ComfyUI's own addresses."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .engine.sampling.experts import BOUNDARY, Guidance, Schedule
from .host import routes
from .host.sampling import run


def register() -> None:
    """Add the pack's addresses to the server, once, before it listens: ComfyUI 0.3.75 knows no later moment than the pack's entry point."""
    routes.serve("GET", "/wan22/schedule", show_schedule)


async def show_schedule(request: web.Request) -> web.Response:
    """The plan of Wan 2.2 Sampler for the settings in the query, which have the names of its widgets; boundary and denoise may be missing.

    Status 400 with {"error": text} for a value that the node would refuse.
    """
    try:
        return web.json_response(planned(request.query))
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)


def planned(query: Mapping[str, str]) -> dict[str, Any]:
    """N+1 `sigmas`; per step its expert ("high" or "low") and its model `calls`, 0 where it is forecast; `all_calls` of a run that
    computes every step; the `boundary`; and `text`, the sentence that the node shows. ValueError for a setting that is missing or out of range."""
    schedule = Schedule(_text(query, "solver"), _number(query, "steps", int), _number(query, "shift"), _number(query, "denoise", default=1.0))
    guidance = Guidance(_number(query, "guidance_scale"), _number(query, "guidance_scale_2"))
    boundary = _number(query, "boundary", default=BOUNDARY)
    sigmas = schedule.sigmas()
    plan = run.plan_for(run.solver(schedule.solver), sigmas, boundary, guidance, _text(query, "acceleration"))
    return {
        "sigmas": sigmas.tolist(),
        "experts": ["high" if step.high else "low" for step in plan.steps],
        "calls": plan.calls(),
        "all_calls": plan.model_calls(all_computed=True),
        "boundary": boundary,
        "text": plan.describe(),
    }


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
