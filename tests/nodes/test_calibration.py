"""One run of a pair of experts says how well their velocities could have been forecast, and a file beside an expert holds what follows."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from comfyui import folder_table_kept
from miniature import export
from sampling_runs import SHAPE, relative_error

OWN = {"first": 4, "in_a_row": 2, "nearest": 0.9, "trend": 0.25}


def calibrate(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> Any:
    plan = pack.nodes.engine.sampling.experts
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    calibration = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.calibration")
    return calibration.calibrate(*experts, positive, negative, plan.Guidance(3.5, 4.0), {"samples": torch.zeros(SHAPE)}, 1,
                                 plan.Schedule("unipc", 20, 8.0), 0.875)


def test_the_errors_are_those_of_the_guided_velocities(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    """Noted a second way, by a function that core calls after guidance."""
    velocities: list[tuple[float, torch.Tensor]] = []

    def note(args: dict[str, Any]) -> torch.Tensor:
        sigma = float(args["sigma"][0])
        velocities.append((sigma * 1000, (args["input"] - args["denoised"]) / sigma))
        return args["denoised"]

    watched = [expert.clone() for expert in experts]
    for expert in watched:
        expert.set_model_sampler_post_cfg_function(note)
    found = calibrate(pack, tuple(watched), prompts)
    for high, own in ((True, velocities[:11]), (False, velocities[11:])):
        held = [error for error in found[high].errors if error.ahead == 1]
        assert len(held) == len(own) - 2
        for error, (_, before), (t, here) in zip(held, own[1:], own[2:], strict=False):
            assert error.t == pytest.approx(t, abs=1e-3)
            assert error.held == pytest.approx(relative_error(before, here), rel=1e-3)


def test_experts_whose_velocity_turns_fast_are_forecast_less(pack: ModuleType) -> None:
    calibration, forecast = pack.nodes.engine.sampling.calibration, pack.nodes.engine.sampling.forecast
    usual = forecast.ForecastSettings(first=2, in_a_row=3, nearest=0.0, trend=0.6)
    proposals = []
    for turn in (0.02, 0.08, 3.0):
        errors = calibration.ForecastErrors()
        for step in range(12):
            angle = torch.tensor(turn * step)
            errors.note(1000.0 - 10 * step, torch.stack([angle.cos(), angle.sin()]))
        proposals.append(calibration.proposed(errors.errors, usual, 0.13))
    assert proposals[0].in_a_row > proposals[1].in_a_row > proposals[2].in_a_row == 0


@pytest.fixture
def beside(pack: ModuleType, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Writes the text beside a copy of the miniature's high-noise expert, and loads that."""
    name = export.FILES["high_noise_model"]
    (tmp_path / name).symlink_to(export.MODELS / "diffusion_models" / name)

    def load(text: str) -> Any:
        (tmp_path / name).with_suffix(".forecast.json").write_text(text, encoding="utf-8")
        return pack.nodes.host.models.files.load_expert(name, "default")

    import folder_paths
    with folder_table_kept():
        folder_paths.add_model_folder_path("diffusion_models", str(tmp_path), is_default=True)
        yield load


def test_settings_beside_an_experts_file_take_the_place_of_the_packs(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple,
                                                                     beside: Callable[[str], Any]) -> None:
    sampling, plan = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    high = beside(json.dumps(OWN)).clone()
    guider = sampling.guider(high, experts[1], positive, negative, plan.Guidance(3.5, 4.0), 5.0, "regular", 0.875)
    made = guider.plan(sampling.solver("unipc"), plan.Schedule("unipc", 27, 5.0).sigmas()).steps
    assert "".join("X" if step.trend is None else "." for step in made) == "XXXX..X..X..XXX.X.X.X.X.XXX"
    assert {step.trend for step in made if step.high} == {None, 0.25}


@pytest.mark.parametrize(("text", "named"), [('{"first": 1, "in_a_row": 2, "nearest": 0.9, "trend": 0.25}', "first is 1"), ("{", "Expecting"),
                                             ('{"first": 4}', "in_a_row"), ("[]", "must be a mapping")])
def test_settings_that_cannot_be_used_are_refused_with_their_files_name(beside: Callable[[str], Any], text: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"forecast.json' beside the expert's file cannot be used: .*{named}"):
        beside(text)
