"""VIDEO in and out: the right VAE, and rates as core makes them."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import videos


def test_another_models_vae_is_refused_before_it_decodes(pack: ModuleType) -> None:
    class OtherVAE:
        latent_channels = 48

    with pytest.raises(ValueError, match="this VAE has 48 latent channels.*wan_2.1_vae.safetensors"):
        pack.nodes.host.video.decode({"samples": torch.zeros(1, 16, 2, 4, 4)}, OtherVAE(), 16)


@pytest.mark.parametrize(("fps", "rate"), [(29.97, Fraction(2997, 100)), (23.976, Fraction(2997, 125)), (30000 / 1001, Fraction(30000, 1001)),
                                           (16.0, 16)])
def test_rates_that_core_makes_of_floats_can_be_written(pack: ModuleType, tmp_path: Path, fps: float, rate: Fraction) -> None:
    from comfy_api.latest import InputImpl, Types
    host: Any = pack.nodes.host.video
    clip = InputImpl.VideoFromComponents(Types.VideoComponents(images=torch.rand(5, 32, 32, 3), audio=None, frame_rate=Fraction(fps)))
    target = host.OutputFile(tmp_path / "clip.mp4", "")
    host.save(clip, target, "high", "fast", False, {})
    assert videos.facts(target.path).rate == rate
