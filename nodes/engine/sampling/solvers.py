"""Flow-matching ODE solvers in data prediction: Euler, DPM-Solver++(2M) and UniPC.

The path is x_sigma = (1 - sigma) * x0 + sigma * noise, so alpha = 1 - sigma and lambda = log(alpha) - log(sigma).
`predict(x, sigma)` returns the network's estimate of x0; `report(step, x0, x)` is called once per step.
x and x0 are latents of shape (B, C, T, H, W); sigmas fall, and usually end in 0.
`forecasts` holds the numbers of the steps whose x0 is no evaluation but a forecast (forecast.py). They lead on like any other; nothing is corrected
by them, for they know no more than what led to them.
"""

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import torch

from ..choices import choose
from . import schedules

Predict = Callable[[torch.Tensor, float], torch.Tensor]
Report = Callable[[int, torch.Tensor, torch.Tensor], None]
Solve = Callable[[Predict, torch.Tensor, Sequence[float], Report, Container[int]], torch.Tensor]


def log_snr(sigma: float) -> float:
    """lambda, half the log signal-to-noise ratio; -inf at pure noise, +inf at sigma 0."""
    if sigma <= 0:
        return math.inf
    return math.log(1 - sigma) - math.log(sigma) if sigma < 1 else -math.inf


def euler(predict: Predict, x: torch.Tensor, sigmas: Sequence[float], report: Report, forecasts: Container[int] = ()) -> torch.Tensor:
    """First order: follow the velocity (x - x0) / sigma down to the next noise level."""
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = predict(x, sigma)
        report(step, x0, x)
        x = x + (x - x0) / sigma * (sigma_next - sigma)
    return x


def dpmpp_2m(predict: Predict, x: torch.Tensor, sigmas: Sequence[float], report: Report, forecasts: Container[int] = ()) -> torch.Tensor:
    """DPM-Solver++(2M), midpoint form (Lu et al. 2022, algorithm 2), first order in the first and the last step."""
    last = len(sigmas) - 2
    previous: tuple[float, torch.Tensor] | None = None
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = predict(x, sigma)
        report(step, x0, x)
        h = log_snr(sigma_next) - log_snr(sigma)
        direction = x0
        if previous is not None and not (step == last and sigma_next == 0):
            r = (log_snr(sigma) - previous[0]) / h
            direction = x0 + (x0 - previous[1]) / (2 * r)
        x = _exponential_step(x, direction, sigma, sigma_next)
        previous = (log_snr(sigma), x0)
    return x


def unipc(predict: Predict, x: torch.Tensor, sigmas: Sequence[float], report: Report, forecasts: Container[int] = ()) -> torch.Tensor:
    """UniPC of order 2 with B(h) = e^-h - 1 (Zhao et al. 2023, "bh2"), order 1 in the first and the last step.

    Each new evaluation first corrects the step that led to it, then predicts the next; it is never repeated at the corrected point. A forecast
    corrects nothing: as the slope at a step's end it would turn the step back into one of first order.
    """
    steps = len(sigmas) - 1
    history: list[_Evaluation] = []
    start, order = x, 0
    for step in range(steps):
        x0 = predict(x, sigmas[step])
        report(step, x0, x)
        here = _Evaluation(sigmas[step], x0)
        if step > 0 and step not in forecasts:
            x = _correct(start, history, here, order)
        history = [*history[-1:], here]
        order = min(2, steps - step, len(history))
        start = x
        x = _extrapolate(start, history, sigmas[step + 1], order)
    return x


@dataclass(frozen=True)
class _Evaluation:
    sigma: float
    x0: torch.Tensor


def _exponential_step(x: torch.Tensor, x0: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
    """Exact solution from sigma to sigma_next for a constant x0."""
    h = log_snr(sigma_next) - log_snr(sigma)
    return sigma_next / sigma * x - (1 - sigma_next) * math.expm1(-h) * x0


def _extrapolate(x: torch.Tensor, history: Sequence[_Evaluation], sigma_next: float, order: int) -> torch.Tensor:
    """UniP: from the last evaluation to sigma_next."""
    here = history[-1]
    result = _exponential_step(x, here.x0, here.sigma, sigma_next)
    if order == 2:
        h = log_snr(sigma_next) - log_snr(here.sigma)
        r = (log_snr(history[-2].sigma) - log_snr(here.sigma)) / h
        result = result - (1 - sigma_next) * math.expm1(-h) * 0.5 * (history[-2].x0 - here.x0) / r
    return result


def _correct(start: torch.Tensor, history: Sequence[_Evaluation], here: _Evaluation, order: int) -> torch.Tensor:
    """UniC: redo the step that led here, now that the evaluation at its end is known."""
    before = history[-1]
    h = log_snr(here.sigma) - log_snr(before.sigma)
    change = here.x0 - before.x0
    if order == 1:
        correction = 0.5 * change
    else:
        r = (log_snr(history[-2].sigma) - log_snr(before.sigma)) / h
        rho_before, rho_here = _corrector_weights(h, r)
        correction = rho_before * (history[-2].x0 - before.x0) / r + rho_here * change
    step = _exponential_step(start, before.x0, before.sigma, here.sigma)
    return step - (1 - here.sigma) * math.expm1(-h) * correction


def _corrector_weights(h: float, r: float) -> tuple[float, float]:
    """Solve [[1, 1], [r, 1]] rho = b with b_k = k! * phi_{k+1}(-h) * (-h) / B(h), equation 10 of the UniPC paper."""
    phi_2 = math.expm1(-h) / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / math.expm1(-h), 2 * phi_3 / math.expm1(-h)
    rho_before = (b_1 - b_2) / (1 - r)
    return rho_before, b_1 - rho_before


@dataclass(frozen=True)
class Solver:
    """A solver with the schedule it was published with.

    `official`: the network sees truncated integer timesteps and sampling starts from unscaled noise, as in Wan's own schedulers.
    """

    sigmas: Callable[[int, float], torch.Tensor]
    solve: Solve
    official: bool

    def timestep(self, sigma: float) -> float:
        """The timestep the network is told for a step at `sigma`; one that truncates to 0 stays as it is, for 0 has no velocity."""
        t = sigma * schedules.TRAIN_TIMESTEPS
        return float(int(t)) if self.official and t >= 1 else t

    def starts_from_noise(self, sigma: float) -> bool:
        """True when the first step at `sigma` gets the noise unscaled, with nothing of the latent in it."""
        return self.official and schedules.timestep(sigma) >= schedules.TRAIN_TIMESTEPS - 1


SOLVERS = {
    "unipc": Solver(schedules.unipc_sigmas, unipc, official=True),
    "dpm++": Solver(schedules.dpmpp_sigmas, dpmpp_2m, official=True),
    "euler": Solver(schedules.euler_sigmas, euler, official=False),
}


def solver_named(name: str) -> Solver:
    return choose("solver", name, SOLVERS)
