"""The steps of a run over both experts, which of them are forecast, and the sentence that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

from ..choices import check_choice
from ..spans import NO_SPANS, LoraSpan, LoraSpans, on_at
from .experts import Guidance, Schedule, check_opening, is_high_noise
from .forecast import ACCELERATIONS, MIN_STEPS, NOTHING_MEASURED, ForecastSettings, Measured, plan_forecasts, settings_at

EXPERT_NAMES = {True: "high", False: "low"}


@dataclass(frozen=True)
class Step:
    """One call of a solver: the noise level, the timestep the network is told, the expert, its guidance, the places of the LoRAs by step that it has
    on, and the trend that a forecast of the velocity follows; None where the velocity is computed."""

    sigma: float
    timestep: float
    high: bool
    guidance: float
    loras: tuple[int, ...] = ()
    trend: float | None = None

    @property
    def phase(self) -> tuple[bool, float, tuple[int, ...]]:
        """What makes the velocity of one step another function than that of the next."""
        return self.high, self.guidance, self.loras


@dataclass(frozen=True)
class StepPlan:
    """The steps of one run over both experts. `one_call_a_step`: the sampler calls the model so; another calls it when it likes. `remark` says what
    else to know: an acceleration that is off, a LoRA that an expert goes without."""

    steps: tuple[Step, ...]
    guidance: Guidance
    loras: LoraSpans = field(default_factory=lambda: NO_SPANS)
    one_call_a_step: bool = True
    remark: str = ""

    def number_at(self, sigma: float) -> int:
        """The number, from 1, of the step whose noise level a sampler that calls the model when it likes has reached."""
        return max(1, sum(step.sigma >= sigma for step in self.steps))

    def loras_at(self, number: int, high: bool) -> tuple[int, ...]:
        """Places of the LoRAs by step that an expert has on, should it be asked in this step."""
        return on_at(self.loras[high], number)

    def lora_sets(self, high: bool) -> list[tuple[int, ...]]:
        """What an expert has on, each set once: in its own steps, or in any where the sampler may ask for it in any."""
        numbers = range(1, len(self.steps) + 1)
        own = [number for number in numbers if self.steps[number - 1].high is high or not self.one_call_a_step]
        return list(dict.fromkeys(self.loras_at(number, high) for number in own or numbers[-1:]))

    def calls(self, all_computed: bool = False) -> tuple[int, ...]:
        """Forward passes of each step: 2 with guidance, 1 with guidance 1, 0 where the velocity is forecast."""
        return tuple(0 if step.trend is not None and not all_computed else 1 if step.guidance == 1.0 else 2 for step in self.steps)

    def model_calls(self, all_computed: bool = False) -> int:
        """Forward passes of the whole run."""
        return sum(self.calls(all_computed))

    @cached_property
    def forecasts(self) -> frozenset[int]:
        """Numbers, from 0, of the steps whose velocity is forecast."""
        return frozenset(number for number, step in enumerate(self.steps) if step.trend is not None)

    def stretches(self) -> list[list[Step]]:
        """The steps in groups that follow each other in one phase."""
        return [list(steps) for _, steps in groupby(self.steps, lambda step: step.phase)]

    def computed(self, remark: str) -> "StepPlan":
        """The same steps, all computed, for the reason that `remark` gives."""
        return replace(self, steps=tuple(replace(step, trend=None) for step in self.steps)).remarked(remark)

    def remarked(self, *remarks: str) -> "StepPlan":
        return replace(self, remark="; ".join(filter(None, [self.remark, *remarks])))

    def needs_negative(self) -> bool:
        return any(step.guidance != 1.0 for step in self.steps)

    def describe(self) -> str:
        parts = [_describe_part(EXPERT_NAMES[high], [step for step in self.steps if step.high is high]) for high in (True, False)]
        line = f"{len(self.steps)} steps: {' + '.join(filter(None, parts))}, guidance {self.guidance.scales}, {self.model_calls()} model calls"
        if self.forecasts:
            line += f" ({len(self.forecasts)} steps forecast, {self.model_calls(all_computed=True) - self.model_calls()} calls saved)"
        return "; ".join(filter(None, [line, *self._loras_by_step(), self.remark]))

    def _loras_by_step(self) -> list[str]:
        """Of each LoRA that is not on in all steps of its expert: on which it is."""
        return [f"{EXPERT_NAMES[high]} has {lora.name} {_describe_steps(on)}" for high, place, lora in self._placed()
                if (on := [number for number, step in self._own(high) if place in step.loras]) != [number for number, _ in self._own(high)]]

    def lora_changes(self) -> dict[int, list[str]]:
        """By the number of a step, from 1: the LoRAs that come or go with it, while its expert stays."""
        changes: dict[int, list[str]] = {}
        for high, place, lora in self._placed():
            own = self._own(high)
            for (_, before), (number, step) in zip(own, own[1:], strict=False):
                if (place in before.loras) is not (place in step.loras):
                    changes.setdefault(number, []).append(f"{'with' if place in step.loras else 'without'} {lora.name}")
        return changes

    def _placed(self) -> list[tuple[bool, int, LoraSpan]]:
        return [(high, place, lora) for high in (True, False) for place, lora in enumerate(self.loras[high])]

    def _own(self, high: bool) -> list[tuple[int, Step]]:
        """An expert's steps, with their numbers from 1."""
        return [(number, step) for number, step in enumerate(self.steps, 1) if step.high is high]


def _describe_part(name: str, steps: Sequence[Step]) -> str:
    return f"{len(steps)} {name} (t {steps[0].timestep:.0f}..{steps[-1].timestep:.0f})" if steps else ""


def _describe_steps(numbers: Sequence[int]) -> str:
    if not numbers:
        return "on no step"
    return f"on step {numbers[0]}" if len(numbers) == 1 else f"on steps {numbers[0]} to {numbers[-1]}"


def plan_steps(sigmas: Sequence[float], timesteps: Sequence[float], boundary: float, guidance: Guidance, loras: LoraSpans = NO_SPANS) -> StepPlan:
    """Give each step to its expert, with its guidance and its LoRAs, every step computed; `sigmas` and `timesteps` of the N calls, without the
    final 0.

    ValueError for a boundary out of range, an opening beyond the high-noise expert's part, and a LoRA's steps beyond the run.
    """
    check_opening(timesteps, boundary, guidance)
    for lora in (*loras[True], *loras[False]):
        lora.check(len(sigmas))
    steps = []
    for number, (sigma, t) in enumerate(zip(sigmas, timesteps, strict=True), 1):
        high = is_high_noise(t, boundary)
        steps.append(Step(sigma, t, high, guidance.at(number, high), on_at(loras[high], number)))
    return StepPlan(tuple(steps), guidance, loras)


def plan_of(schedule: Schedule, boundary: float, guidance: Guidance, acceleration: str = "none", loras: LoraSpans = NO_SPANS) -> StepPlan:
    """The plan of a run of one of the pack's solvers over its own schedule."""
    plan = plan_steps(schedule.sigmas().tolist()[:-1], schedule.timesteps(), boundary, guidance, loras)
    return accelerated(plan, acceleration, schedule.solver)


def accelerated(plan: StepPlan, acceleration: str, solver: str = "unipc", measured: Measured = NOTHING_MEASURED) -> StepPlan:
    """The plan with those steps marked that acceleration forecasts: each stretch in one phase by itself, for a forecast knows no other.

    The last step is always computed. `measured`: settings of `regular` in place of the pack's. ValueError for an acceleration of another name.
    """
    check_choice("acceleration", acceleration, ACCELERATIONS)
    if acceleration == "none":
        return plan
    if len(plan.steps) < MIN_STEPS:
        return plan.remarked(f"acceleration off: below {MIN_STEPS} steps it does not pay")
    marked: list[Step] = []
    for stretch in plan.stretches():
        high, scale, _ = stretch[0].phase
        marked += forecast_steps(stretch, settings_at(acceleration, solver, len(stretch), scale, high, measured.get(high)))
    return replace(plan, steps=(*marked[:-1], plan.steps[-1]))


def forecast_steps(steps: Sequence[Step], settings: ForecastSettings) -> list[Step]:
    """The steps of one expert, the trend set on those that are forecast."""
    forecasts = plan_forecasts([step.timestep for step in steps], settings)
    return [replace(step, trend=settings.trend) if forecast else step for step, forecast in zip(steps, forecasts, strict=True)]
