"""Which expert takes which step, with which guidance, which steps are forecast, and the sentence that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..choices import check_choice, check_range
from .forecast import ACCELERATIONS, MIN_STEPS, NOTHING_MEASURED, ForecastSettings, Measured, plan_forecasts, settings_at
from .schedules import MAX_SHIFT, MAX_STEPS, TRAIN_TIMESTEPS
from .solvers import solver_named

BOUNDARY = 0.875  # wan/configs/wan_t2v_A14B.py
MAX_GUIDANCE = 100.0
MIN_DENOISE = 0.01


def check_methods(solver: str, acceleration: str) -> None:
    """ValueError unless both are names from the tables."""
    solver_named(solver)
    check_choice("acceleration", acceleration, ACCELERATIONS)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance scale of each expert; 1 means none."""

    high: float
    low: float

    def __post_init__(self) -> None:
        check_range("guidance_scale", self.high, 0.0, MAX_GUIDANCE)
        check_range("guidance_scale_2", self.low, 0.0, MAX_GUIDANCE)


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a run: `steps` of a solver's schedule at `shift`, the last `denoise` part of it."""

    solver: str
    steps: int
    shift: float
    denoise: float = 1.0

    def __post_init__(self) -> None:
        solver_named(self.solver)
        check_range("steps", self.steps, 1, MAX_STEPS)
        check_range("shift", self.shift, 0.01, MAX_SHIFT)
        check_range("denoise", self.denoise, MIN_DENOISE, 1.0)

    def sigmas(self) -> torch.Tensor:
        """float32 (steps + 1,), falling to 0. Below denoise 1 a longer schedule is cut, as KSampler does."""
        whole = solver_named(self.solver).sigmas(int(self.steps / self.denoise), self.shift)
        return whole[-(self.steps + 1) :]


def is_high_noise(timestep: float, boundary: float) -> bool:
    """True when the high-noise expert takes this timestep: t >= boundary * 1000 (wan/text2video.py)."""
    return timestep >= round(boundary * TRAIN_TIMESTEPS, 6)


@dataclass(frozen=True)
class Step:
    """One call of a solver: the noise level, the timestep the network is told, the expert, and the trend that a forecast of the velocity follows;
    None where the velocity is computed."""

    sigma: float
    timestep: float
    high: bool
    trend: float | None = None


@dataclass(frozen=True)
class StepPlan:
    """The steps of one run over both experts. `remark` says what else to know: an acceleration that is off, a LoRA that an expert goes without."""

    steps: tuple[Step, ...]
    guidance: Guidance
    remark: str = ""

    def calls(self, all_computed: bool = False) -> tuple[int, ...]:
        """Forward passes of each step: 2 with guidance, 1 with guidance 1, 0 where the velocity is forecast."""
        return tuple(0 if step.trend is not None and not all_computed else 1 if self._scale(step) == 1.0 else 2 for step in self.steps)

    def model_calls(self, all_computed: bool = False) -> int:
        """Forward passes of the whole run."""
        return sum(self.calls(all_computed))

    def _scale(self, step: Step) -> float:
        return self.guidance.high if step.high else self.guidance.low

    @cached_property
    def forecasts(self) -> frozenset[int]:
        """Numbers, from 0, of the steps whose velocity is forecast."""
        return frozenset(number for number, step in enumerate(self.steps) if step.trend is not None)

    def computed(self, remark: str) -> "StepPlan":
        """The same steps, all computed, for the reason that `remark` gives."""
        return replace(self, steps=tuple(replace(step, trend=None) for step in self.steps), remark="; ".join(filter(None, [self.remark, remark])))

    def needs_negative(self) -> bool:
        return any(self._scale(step) != 1.0 for step in self.steps)

    def describe(self) -> str:
        parts = [_describe_part(name, [step for step in self.steps if step.high is high]) for name, high in (("high", True), ("low", False))]
        line = (f"{len(self.steps)} steps: {' + '.join(filter(None, parts))}, "
                f"guidance {self.guidance.high} / {self.guidance.low}, {self.model_calls()} model calls")
        if self.forecasts:
            line += f" ({len(self.forecasts)} steps forecast, {self.model_calls(all_computed=True) - self.model_calls()} calls saved)"
        return f"{line}; {self.remark}" if self.remark else line


def _describe_part(name: str, steps: Sequence[Step]) -> str:
    return f"{len(steps)} {name} (t {steps[0].timestep:.0f}..{steps[-1].timestep:.0f})" if steps else ""


def plan_steps(sigmas: Sequence[float], timesteps: Sequence[float], boundary: float, guidance: Guidance, acceleration: str,
               solver: str = "unipc", measured: Measured = NOTHING_MEASURED) -> StepPlan:
    """Give each step to its expert and mark those that acceleration forecasts; `sigmas` and `timesteps` of the N calls, without the final 0.

    The last step is always computed. `measured`: settings of `regular` in place of the pack's.
    """
    check_range("boundary", boundary, 0.0, 1.0)
    check_choice("acceleration", acceleration, ACCELERATIONS)
    steps = tuple(Step(sigma, t, is_high_noise(t, boundary)) for sigma, t in zip(sigmas, timesteps, strict=True))
    if acceleration == "none":
        return StepPlan(steps, guidance)
    if len(steps) < MIN_STEPS:
        return StepPlan(steps, guidance, f"acceleration off: below {MIN_STEPS} steps it does not pay")
    planned = []
    for high, scale in ((True, guidance.high), (False, guidance.low)):
        own = [step for step in steps if step.high is high]
        planned += forecast_steps(own, settings_at(acceleration, solver, len(own), scale, high, measured.get(high)))
    return StepPlan((*planned[:-1], steps[-1]), guidance)


def forecast_steps(steps: Sequence[Step], settings: ForecastSettings) -> list[Step]:
    """The steps of one expert, the trend set on those that are forecast."""
    forecasts = plan_forecasts([step.timestep for step in steps], settings)
    return [replace(step, trend=settings.trend) if forecast else step for step, forecast in zip(steps, forecasts, strict=True)]
