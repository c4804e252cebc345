"""Sigma schedules of the flow solvers, as the official Wan 2.2 code and ComfyUI make them.

A schedule is a float32 tensor of N+1 noise levels, falling from about 1 (pure noise) to 0 (the video).
"""

import numpy as np
import torch

TRAIN_TIMESTEPS = 1000
FLOW_SIGMA_MAX = float(np.float32(0.999))  # 1 - 1/1000, kept in float32 by FlowUniPCMultistepScheduler
MAX_SHIFT = 100.0


def shift_sigma(sigma: np.ndarray, shift: float) -> np.ndarray:
    """Spend more steps at high noise: s*sigma / (1 + (s-1)*sigma) (Stable Diffusion 3, section 5.3.2)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def unipc_sigmas(steps: int, shift: float) -> torch.Tensor:
    """wan/utils/fm_solvers_unipc.py, set_timesteps: N+1 levels from 0.999 to 0, the last dropped, shifted, then 0."""
    return _finish(np.linspace(FLOW_SIGMA_MAX, 0, steps + 1)[:-1], shift)


def dpmpp_sigmas(steps: int, shift: float) -> torch.Tensor:
    """wan/utils/fm_solvers.py, get_sampling_sigmas: N+1 levels from 1 to 0, the last dropped, shifted, then 0."""
    return _finish(np.linspace(1, 0, steps + 1)[:steps], shift)


def euler_sigmas(steps: int, shift: float) -> torch.Tensor:
    """ComfyUI's `simple` scheduler over 1000 training timesteps, which Lightning workflows and core's template use."""
    index = np.floor(np.arange(steps) * (TRAIN_TIMESTEPS / steps))
    return _finish(1 - index / TRAIN_TIMESTEPS, shift)


def _finish(sigmas: np.ndarray, shift: float) -> torch.Tensor:
    shifted = shift_sigma(sigmas, shift)
    return torch.from_numpy(np.append(_keep_timesteps(shifted), np.float32(0)))


def _keep_timesteps(sigmas: np.ndarray) -> np.ndarray:
    """Round to float32, one unit in the last place up or down where plain rounding would cross an integer timestep."""
    rounded = sigmas.astype(np.float32)
    timesteps = np.floor(sigmas * TRAIN_TIMESTEPS)
    off_by = timesteps - np.floor(rounded.astype(np.float64) * TRAIN_TIMESTEPS)
    return np.where(off_by == 0, rounded, np.nextafter(rounded, np.sign(off_by).astype(np.float32) * np.float32(2)))


def timestep(sigma: float) -> int:
    """The integer training timestep 0..1000 of a noise level, truncated as the official schedulers do."""
    return int(sigma * TRAIN_TIMESTEPS)
