"""The MP4 writer keeps count, order, size, rate and colour, and leaves no half-written file."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace

from engine.frames import chunks, to_rgb24
from engine.video.encode import CRF, PRESETS, VideoFormat, write_mp4


def clip(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Grey frames whose level names their place."""
    return torch.linspace(0.1, 0.9, frames)[:, None, None, None].expand(frames, height, width, 3)


def video(rate: Fraction = Fraction(16), quality: str = "high", write_mode: str = "fast", size: tuple[int, int] = (64, 48)) -> VideoFormat:
    return VideoFormat(*size, rate, quality, write_mode)


def read_rgb(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU709).to_ndarray()
                         for frame in container.decode(video=0)])


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("rate", [Fraction(4), Fraction(16), Fraction(30000, 1001), Fraction(60)])
def test_count_order_size_and_rate_survive(tmp_path: Path, frames: int, rate: Fraction) -> None:
    path = tmp_path / "clip.mp4"
    assert write_mp4(path, chunks(clip(frames)), video(rate), {}) == frames
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (64, 48, frames, rate)
    levels = read_rgb(path).mean(axis=(1, 2, 3))
    assert np.abs(levels - np.linspace(0.1, 0.9, frames) * 255).max() < 2


def test_reversed_chunks_run_backwards() -> None:
    frames = clip(19)
    assert torch.equal(torch.cat(list(chunks(frames, reverse=True))), frames.flip(0))
    assert torch.equal(torch.cat(list(chunks(frames))), frames)


@pytest.mark.parametrize("colour", [(40, 160, 60), (200, 30, 30), (16, 16, 16), (128, 128, 128), (235, 235, 235)])
def test_colours_are_bt709(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, iter([(torch.tensor(colour) / 255).expand(3, 48, 64, 3)]), video(quality="maximum"), {})
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
    assert np.abs(read_rgb(path).astype(int) - colour).max() <= 2


def test_odd_sizes_lose_one_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, chunks(clip(3, 49, 65)), video(size=(65, 49)), {})
    assert read_rgb(path).shape == (3, 48, 64, 3)


def test_metadata_is_json(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, chunks(clip(2)), video(), {"prompt": {"1": {"text": "\u72d0\u72f8"}}})
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"]) == {"1": {"text": "\u72d0\u72f8"}}


def test_a_failure_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def breaking() -> Iterator[torch.Tensor]:
        yield clip(4)
        raise RuntimeError("decoder broke")

    with pytest.raises(RuntimeError, match="decoder broke"):
        write_mp4(tmp_path / "clip.mp4", breaking(), video(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"quality": "ultra"}, {"write_mode": "slow"}, {"rate": Fraction(0)}])
def test_unknown_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="choose one of|must be above 0"):
        video(**arguments)


def test_tables_are_ordered_by_name() -> None:
    assert list(CRF) == ["low", "medium", "high", "maximum"]
    assert list(CRF.values()) == sorted(CRF.values(), reverse=True)
    assert list(PRESETS) == ["fast", "balanced", "small"]


def test_rounding_is_to_the_nearest_level_and_alpha_is_dropped() -> None:
    pixels = torch.tensor([[[[0.0, 0.998, 1.7, 0.5]]]])
    assert to_rgb24(pixels).tolist() == [[[[0, 254, 255]]]]
    assert to_rgb24(torch.full((1, 1, 1, 3), 100.6 / 255)).tolist() == [[[[101, 101, 101]]]]
