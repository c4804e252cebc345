"""Which expert takes which step, with which guidance, and the sentence that says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..choices import check_choice, check_range
from .schedules import MAX_SHIFT, MAX_STEPS, TRAIN_TIMESTEPS
from .solvers import solver_named

BOUNDARY = 0.875  # wan/configs/wan_t2v_A14B.py
ACCELERATIONS = ("regular", "none")
MAX_GUIDANCE = 100.0


def check_methods(solver: str, acceleration: str) -> None:
    """ValueError unless both are names from the tables."""
    solver_named(solver)
    check_choice("acceleration", acceleration, ACCELERATIONS)


@dataclass(frozen=True)
class SamplingSettings:
    """Everything the sampler node asks for besides models, prompts and latent; ValueError names what is out of range."""

    steps: int
    guidance_high: float
    guidance_low: float
    shift: float
    solver: str
    acceleration: str
    boundary: float

    def __post_init__(self) -> None:
        check_methods(self.solver, self.acceleration)
        check_range("steps", self.steps, 1, MAX_STEPS)
        check_range("shift", self.shift, 0.01, MAX_SHIFT)
        check_range("boundary", self.boundary, 0.0, 1.0)
        check_range("guidance_scale", self.guidance_high, 0.0, MAX_GUIDANCE)
        check_range("guidance_scale_2", self.guidance_low, 0.0, MAX_GUIDANCE)


def is_high_noise(timestep: float, boundary: float) -> bool:
    """True when the high-noise expert takes this timestep: t >= boundary * 1000 (wan/text2video.py)."""
    return timestep >= round(boundary * TRAIN_TIMESTEPS, 6)


@dataclass(frozen=True)
class StepPlan:
    """The steps of one run, split between the experts."""

    high: tuple[float, ...]
    low: tuple[float, ...]
    guidance_high: float
    guidance_low: float

    @classmethod
    def of(cls, timesteps: Sequence[float], boundary: float, guidance_high: float, guidance_low: float) -> "StepPlan":
        """Split the timesteps at which the network is called."""
        high = tuple(t for t in timesteps if is_high_noise(t, boundary))
        low = tuple(t for t in timesteps if not is_high_noise(t, boundary))
        return cls(high, low, guidance_high, guidance_low)

    @classmethod
    def of_settings(cls, settings: SamplingSettings) -> "StepPlan":
        solver = solver_named(settings.solver)
        sigmas = solver.sigmas(settings.steps, settings.shift).tolist()[:-1]
        return cls.of([solver.timestep(sigma) for sigma in sigmas], settings.boundary, settings.guidance_high, settings.guidance_low)

    @property
    def model_calls(self) -> int:
        """Forward passes: a step with guidance needs two, one with guidance 1 needs one."""
        return len(self.high) * _calls(self.guidance_high) + len(self.low) * _calls(self.guidance_low)

    def describe(self) -> str:
        parts = [f"{len(steps)} {name} (t {steps[0]:.0f}..{steps[-1]:.0f})"
                 for name, steps in (("high", self.high), ("low", self.low)) if steps]
        return (f"{len(self.high) + len(self.low)} steps: {' + '.join(parts)}, "
                f"guidance {self.guidance_high} / {self.guidance_low}, {self.model_calls} model calls")


def _calls(guidance: float) -> int:
    return 1 if guidance == 1.0 else 2
