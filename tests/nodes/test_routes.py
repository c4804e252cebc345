"""The HTTP edge: the schedule that the sampler's picture is drawn from is the one that it runs."""

import json
import urllib.error
import urllib.parse
from types import ModuleType
from typing import Any

import pytest

from comfyui import ComfyUI

DEFAULTS = {"steps": 27, "shift": 5, "solver": "unipc", "acceleration": "regular", "guidance_scale": 3.5, "guidance_scale_2": 4}


def schedule(server: ComfyUI, **changes: Any) -> dict[str, Any]:
    settings = {name: value for name, value in {**DEFAULTS, **changes}.items() if value is not None}
    return server.get(f"/wan22/schedule?{urllib.parse.urlencode(settings)}")


def refusal(server: ComfyUI, **changes: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        schedule(server, **changes)
    assert caught.value.code == 400
    return json.loads(caught.value.read())["error"]


def test_the_defaults_are_the_hosted_ones(server: ComfyUI) -> None:
    plan = schedule(server)
    assert len(plan["sigmas"]) == 28 and plan["sigmas"][0] == pytest.approx(0.9998, abs=1e-4) and plan["sigmas"][-1] == 0
    assert plan["experts"] == ["high"] * 12 + ["low"] * 15
    assert (sum(plan["calls"]), plan["all_calls"], plan["boundary"]) == (36, 54, 0.875)
    assert plan["text"] == server.get(f"/api/wan22/schedule?{urllib.parse.urlencode(DEFAULTS)}")["text"]
    assert plan["text"].startswith("27 steps: 12 high")


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize(("steps", "shift", "denoise", "boundary"),
                         [(4, 5.0, 1.0, 0.875), (40, 12.0, 1.0, 0.9), (13, 3.0, 0.6, 0.0), (1, 1.0, 1.0, 1.0)])
def test_what_is_shown_is_what_runs(server: ComfyUI, pack: ModuleType, solver: str, steps: int, shift: float, denoise: float,
                                    boundary: float) -> None:
    shown = schedule(server, solver=solver, steps=steps, shift=shift, denoise=denoise, boundary=boundary, guidance_scale=1)
    experts, host = pack.nodes.engine.sampling.experts, pack.nodes.host.sampling
    sigmas = experts.Schedule(solver, steps, shift, denoise).sigmas()
    plan = host.plan_for(host.solver(solver), sigmas, boundary, experts.Guidance(1.0, 4.0), "regular")
    assert shown["sigmas"] == sigmas.tolist()
    assert shown["text"] == plan.describe()
    assert [expert == "high" for expert in shown["experts"]] == [step.high for step in plan.steps]
    assert [count == 0 for count in shown["calls"]] == [step.skipped for step in plan.steps]
    assert (sum(shown["calls"]), shown["all_calls"]) == (plan.model_calls(), plan.model_calls(with_skipped=True))
    assert all(count in (0, 1 if expert == "high" else 2) for count, expert in zip(shown["calls"], shown["experts"], strict=True))


@pytest.mark.parametrize(("change", "message"), [
    ({"steps": 0}, "steps is 0; it must be between 1 and 200."),
    ({"steps": 2.5}, "steps is '2.5'; it must be a whole number."),
    ({"steps": None}, "steps is missing."),
    ({"shift": "much"}, "shift is 'much'; it must be a number."),
    ({"shift": "nan"}, "shift is nan; it must be between 0.01 and 100.0."),
    ({"denoise": 0}, "denoise is 0.0; it must be between 0.01 and 1.0."),
    ({"boundary": 2}, "boundary is 2.0; it must be between 0.0 and 1.0."),
    ({"guidance_scale_2": -1}, "guidance_scale_2 is -1.0; it must be between 0.0 and 100.0."),
    ({"solver": "heun"}, "solver is 'heun'; choose one of: unipc, dpm++, euler."),
    ({"acceleration": "fast"}, "acceleration is 'fast'; choose one of: regular, none."),
], ids=str)
def test_wrong_values_are_refused_in_words(server: ComfyUI, change: dict[str, Any], message: str) -> None:
    assert refusal(server, **change) == message


def test_without_a_server_nothing_is_registered(pack: ModuleType) -> None:
    import server as comfyui_server
    assert getattr(comfyui_server.PromptServer, "instance", None) is None
    pack.nodes.routes.register()
