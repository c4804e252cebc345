"""Some steps of a run: from when to when a LoRA is on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .choices import check_range

MAX_STEPS = 200  # of a run


@dataclass(frozen=True)
class Span:
    """Steps `first` to `last` of a run, both counted from 1; last 0 is its end. ValueError for steps out of range or order."""

    first: int = 1
    last: int = 0

    def __post_init__(self) -> None:
        check_range("first_step", self.first, 1, MAX_STEPS)
        check_range("last_step", self.last, 0, MAX_STEPS)
        if 0 < self.last < self.first:
            raise ValueError(f"first_step is {self.first}, after last_step {self.last}. Set last_step to {self.first} or more, or to 0 for the end "
                             "of the run.")

    def __contains__(self, step: int) -> bool:
        return self.first <= step and (not self.last or step <= self.last)

    @property
    def is_whole(self) -> bool:
        """True for every step of a run of any length."""
        return self == Span()

    def describe(self) -> str:
        if not self.last:
            return f"from step {self.first}"
        return f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"


@dataclass(frozen=True)
class LoraSpan:
    """When an expert has the LoRA of this name."""

    name: str
    span: Span

    def check(self, steps: int) -> None:
        """ValueError where the span names steps beyond a run of so many."""
        for name, step in (("first_step", self.span.first), ("last_step", self.span.last)):
            if step > steps:
                raise ValueError(f"{name} of the LoRA {self.name} is {step}, beyond the run of {steps} steps. Set it to {steps} at most"
                                 f"{', or to 0 for the end of the run' if name == 'last_step' else ''}.")


LoraSpans = Mapping[bool, Sequence[LoraSpan]]  # of the high-noise expert (True) and of the low-noise one (False)
NO_SPANS: LoraSpans = {True: (), False: ()}


def on_at(loras: Sequence[LoraSpan], step: int) -> tuple[int, ...]:
    """Places in the sequence of those that are on at a step, counted from 1."""
    return tuple(place for place, lora in enumerate(loras) if step in lora.span)
