"""The names of quality and write mode keep their order on a real clip."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

import clips
import videos
from engine.frames import FrameStream, chunks, to_levels
from engine.video.formats import QUALITIES, WRITE_MODES, VideoFormat, available_codecs
from engine.video.write import PartFile, write_file


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    return clips.clip("bikes.mp4", 2, 24)[:, 40:232, 100:420]


def encoded(scene: torch.Tensor, folder: Path, quality: str, mode: str, codec: str = "h264") -> tuple[int, float]:
    """Size in bytes and SSIM."""
    video, path = VideoFormat(quality, mode, codec), folder / f"{quality}-{mode}.mp4"
    stream = FrameStream(scene.shape[2], scene.shape[1], len(scene), Fraction(16), lambda: chunks(scene))
    write_file(PartFile(path), map(to_levels, stream.pull()), stream, video, {})
    return path.stat().st_size, clips.ssim(scene, videos.rgb(path))


def test_quality_and_write_mode_mean_what_they_say(scene: torch.Tensor, tmp_path: Path) -> None:
    table = {(quality, mode): encoded(scene, tmp_path, quality, mode) for quality in QUALITIES for mode in WRITE_MODES}
    print(*(f"{quality:<8} {mode:<9} {size:>7} bytes, SSIM {ssim:.4f}" for (quality, mode), (size, ssim) in table.items()), sep="\n")
    for mode in WRITE_MODES:
        likeness = [table[quality, mode][1] for quality in QUALITIES]
        assert likeness == sorted(likeness)
    for quality in QUALITIES:
        fast, balanced, small = (table[quality, mode] for mode in WRITE_MODES)
        assert small[0] < balanced[0] < fast[0]
        assert max(fast[1], balanced[1], small[1]) - min(fast[1], balanced[1], small[1]) < 0.005


@pytest.mark.parametrize("codec", [codec for codec in available_codecs() if codec not in ("h264", "prores")])
def test_a_higher_quality_of_every_codec_is_no_less_like_the_original(scene: torch.Tensor, tmp_path: Path, codec: str) -> None:
    likeness = [encoded(scene[:8], tmp_path, quality, "fast", codec)[1] for quality in QUALITIES]
    assert likeness == sorted(likeness)
