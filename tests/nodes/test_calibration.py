"""One run of a pair of experts gives the curves that plan its skips."""

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch

from sampling_runs import SHAPE


def calibrate(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple, guidance: tuple[float, float] = (3.5, 4.0)) -> Any:
    plan = pack.nodes.engine.sampling.experts
    positive, negative = ([[prompt[None], {}]] for prompt in prompts)
    calibration = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.calibration")
    return calibration.calibrate(*experts, positive, negative, plan.Guidance(*guidance), {"samples": torch.zeros(SHAPE)}, 1,
                                 plan.Schedule("unipc", 20, 8.0), 0.875)


def test_every_step_of_each_expert_is_measured_for_both_branches(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    high, low = calibrate(pack, experts, prompts)
    assert (len(high.timesteps), len(low.timesteps)) == (11, 9)
    assert high.timesteps[0] == 999
    for curve in (high, low):
        assert curve.ratios[0] == (1.0, 1.0)
        assert all(0 < ratio < 10 and ratio != 1.0 for pair in curve.ratios[1:] for ratio in pair)


def test_the_ratios_are_those_of_the_blocks_residuals(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    """Measured a second way, by PyTorch hooks on the first and the last block."""
    blocks = experts[0].model.diffusion_model.blocks
    inputs, residuals = [], []
    hooks = [blocks[0].register_forward_pre_hook(lambda module, args: inputs.append(args[0])),
             blocks[-1].register_forward_hook(lambda module, args, output: residuals.append(output - inputs[-1]))]
    high, _ = calibrate(pack, experts, prompts)
    for hook in hooks:
        hook.remove()
    norms = torch.stack([residual.norm(dim=-1) for residual in residuals])  # (steps, branches in one batch, tokens)
    by_hooks = (norms[1:] / norms[:-1]).mean(dim=-1)
    measured = torch.tensor(high.ratios[1:])
    torch.testing.assert_close(measured.sort(dim=-1).values, by_hooks.cpu().sort(dim=-1).values, rtol=1e-4, atol=1e-5)


def test_the_calibrated_curve_plans_skips(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    caching = pack.nodes.engine.sampling.caching
    high, _ = calibrate(pack, experts, prompts)
    assert any(caching.plan_skips(high.timesteps, high, caching.CacheSettings(max_error=10.0, max_skips=2, retention=0.2)))


def test_guidance_one_leaves_a_branch_unmeasured_and_is_refused(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple) -> None:
    with pytest.raises(ValueError, match="guidance is 1.0 / 4.0; calibration measures both branches"):
        calibrate(pack, experts, prompts, guidance=(1.0, 4.0))
