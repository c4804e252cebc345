"""What a run is asked for: its noise levels, the guidance of each expert, and the noise level at which one takes over from the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..choices import check_choice, check_range
from ..spans import MAX_STEPS
from .forecast import ACCELERATIONS
from .schedules import MAX_SHIFT, TRAIN_TIMESTEPS
from .solvers import solver_named

BOUNDARY = 0.875  # wan/configs/wan_t2v_A14B.py
MAX_GUIDANCE = 100.0
OPENING_GUIDANCE = 3.5  # of Wan2GP's first phase, and the hosted default of the high-noise expert
MIN_DENOISE = 0.01


def check_methods(solver: str, acceleration: str) -> None:
    """ValueError unless both are names from the tables."""
    solver_named(solver)
    check_choice("acceleration", acceleration, ACCELERATIONS)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance scale of each expert, 1 meaning none. The first `opening_steps` of a run, all of them the high-noise expert's,
    have `opening` in place of `high`."""

    high: float
    low: float
    opening_steps: int = 0
    opening: float = OPENING_GUIDANCE

    def __post_init__(self) -> None:
        check_range("guidance_scale", self.high, 0.0, MAX_GUIDANCE)
        check_range("guidance_scale_2", self.low, 0.0, MAX_GUIDANCE)
        check_range("opening_steps", self.opening_steps, 0, MAX_STEPS)
        check_range("opening_guidance", self.opening, 0.0, MAX_GUIDANCE)

    def at(self, step: int, high: bool) -> float:
        """The scale of a step, counted from 1, of the high-noise expert or of the other."""
        return self.opening if step <= self.opening_steps else self.high if high else self.low

    @property
    def scales(self) -> str:
        """As the schedule's text gives them."""
        opening = f"{self.opening} for {self.opening_steps} step{'s' if self.opening_steps > 1 else ''}, then " if self.opening_steps else ""
        return f"{opening}{self.high} / {self.low}"


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

    def timesteps(self) -> list[float]:
        """What the network is told in each step, 0..1000."""
        solver = solver_named(self.solver)
        return [solver.timestep(sigma) for sigma in self.sigmas().tolist()[:-1]]


def is_high_noise(timestep: float, boundary: float) -> bool:
    """True when the high-noise expert takes this timestep: t >= boundary * 1000 (wan/text2video.py)."""
    return timestep >= round(boundary * TRAIN_TIMESTEPS, 6)


def check_opening(timesteps: Sequence[float], boundary: float, guidance: Guidance) -> None:
    """ValueError for a boundary out of range, and for an opening that is longer than the high-noise expert's part of a run."""
    check_range("boundary", boundary, 0.0, 1.0)
    high = sum(is_high_noise(t, boundary) for t in timesteps)
    if guidance.opening_steps > high:
        taken = f"{high or 'none'} of the {len(timesteps)} steps"
        cure = f"{high} at most" if high else "0"
        raise ValueError(f"opening_steps is {guidance.opening_steps}, but the high-noise expert takes {taken}. "
                         f"Set it to {cure}, or raise steps or shift.")
