"""One training loop for every part: seeded per step, resumable, cosine learning rate, moving average of the weights, checkpoints by the clock."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from miniature.recipe import Length, device

Weights = dict[str, torch.Tensor]
CHECKPOINT_SECONDS, LOG_STEPS = 120.0, 50
MEASURED = (5, 45)  # steps between which a part given in minutes measures how many steps fit


@dataclass
class State:
    """What a checkpoint holds beside the weights."""

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    average: Weights = field(default_factory=dict)


def train(net: torch.nn.Module, loss_at: Callable[[int], torch.Tensor], length: Length, place: Path, minutes: float | None = None) -> Weights:
    """Train what in `net` requires a gradient and return the averaged weights of that.

    `loss_at` computes the loss of a step, a scalar, from nothing but its number. `place` names the checkpoint (.pt) and the curve (.jsonl); what
    is there already is gone on with. With `minutes`, the number of steps is what fits, measured once and kept in the checkpoint.
    """
    trained: Weights = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=length.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    state = _resumed(place, trained, optimizer) or State(steps=length.steps, average={name: p.detach().clone() for name, p in trained.items()})
    clock = Clock(state, place, minutes)
    while state.step < state.steps:
        for group in optimizer.param_groups:
            group["lr"] = length.learning_rate * schedule(state.step, state.steps, length.warmup)
        loss = loss_at(state.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step += 1
        _average(state, trained, length.average)
        clock.tick(loss)
        if clock.is_time_to_save() or state.step == state.steps:
            _save(place, state, trained, optimizer)
    return {name: tensor.cpu() for name, tensor in state.average.items()}


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate: linear up over the warm-up, then a cosine down to 1 %."""
    return min((step + 1) / warmup, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * step / max(1, steps))))


def mixed_precision() -> torch.autocast:
    """bfloat16 where it multiplies: faster on GPUs and on CPUs that have it."""
    return torch.autocast(device().type, torch.bfloat16)


def _average(state: State, trained: Weights, decay: float) -> None:
    decay = min(decay, state.step / (state.step + 9))
    torch._foreach_lerp_(list(state.average.values()), [parameter.detach() for parameter in trained.values()], 1 - decay)


class Clock:
    """Seconds of a part, the length of one that is given in minutes, and the loss curve."""

    def __init__(self, state: State, place: Path, minutes: float | None) -> None:
        self.state, self.minutes, self.curve = state, minutes, place.with_suffix(".jsonl")
        self.last = self.saved = time.monotonic()
        self.began = 0.0
        self.losses: list[torch.Tensor] = []

    def tick(self, loss: torch.Tensor) -> None:
        state, now = self.state, time.monotonic()
        state.seconds += now - self.last
        self.last = now
        if state.step == MEASURED[0]:
            self.began = state.seconds
        if state.step == MEASURED[1] and self.minutes and self.began:
            per_step = (state.seconds - self.began) / (MEASURED[1] - MEASURED[0])
            state.steps = max(MEASURED[1] + 1, round((self.minutes * 60 - state.seconds) / per_step) + MEASURED[1])
            print(f"{self.curve.stem}: {per_step:.3f} s per step, {state.steps} steps fit into {self.minutes} minutes", flush=True)
        self.losses.append(loss.detach())
        if state.step % LOG_STEPS == 0 or state.step == state.steps:
            self._log()

    def _log(self) -> None:
        mean = float(torch.stack(self.losses).float().mean())
        self.losses.clear()
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.state.step, "steps": self.state.steps, "seconds": round(self.state.seconds, 1), "loss": mean}) + "\n")
        if self.state.step % (LOG_STEPS * 10) == 0 or self.state.step == self.state.steps:
            print(f"{self.curve.stem}: step {self.state.step}/{self.state.steps}, {self.state.seconds:.0f} s, loss {mean:.4f}", flush=True)

    def is_time_to_save(self) -> bool:
        due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
        if due:
            self.saved = time.monotonic()
        return due


def _save(place: Path, state: State, trained: Weights, optimizer: torch.optim.Optimizer) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(".part")
    torch.save({"state": vars(state), "trained": dict(trained), "optimizer": optimizer.state_dict()}, unfinished)
    unfinished.replace(place)


def _resumed(place: Path, trained: Weights, optimizer: torch.optim.Optimizer) -> State | None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.with_suffix(".jsonl").unlink(missing_ok=True)
        return None
    saved = torch.load(place, map_location=device(), weights_only=True)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved["trained"][name])
    optimizer.load_state_dict(saved["optimizer"])
    return State(**saved["state"])


def averaged(place: Path) -> Weights:
    """The averaged weights of a checkpoint."""
    return torch.load(place, map_location="cpu", weights_only=True)["state"]["average"]
