"""The clip on the node that samples it, moving, after each step: from the latent's colours, or from a small decoder where ComfyUI has one.

ComfyUI's own preview shows one frame. Its switch holds here too: with `--preview-method none` nothing is made. The picture goes to the page that runs
the prompt, and to no other; for a program's prompt none is made.
"""

import base64
import threading
from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
import numpy as np
import torch
from einops import rearrange

from ...engine.log import log
from ...engine.video.moving_picture import moving_picture, small_size
from ..messages import Page, page_at_work
from ..models.memory import Model

EVENT = "wan22.preview"
LATENT_FRAME = 4  # frames that one latent frame stands for
IN_SUBGRAPH = ":"  # of the id of a node; what stands for the subgraph shows ComfyUI's still picture
USUAL_RATE = 16  # frames per second: the sampler is not told how fast its clip will be shown
Callback = Callable[[int, torch.Tensor, torch.Tensor, int], None]


class StepReport:
    """The callback of a solver: moves the bar, and hands the clip of each step to a thread that shows it. `with` ends the thread."""

    def __init__(self, model: Model, steps: int) -> None:
        self.bar = comfy.utils.ProgressBar(steps)
        page = page_at_work()
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format) if page else None
        self.colours = colours_of(previewer) if previewer else None
        self.screen = Screen(page) if page and self.colours else None
        self.still = previewer if page and (IN_SUBGRAPH in page.node_id or not self.colours) else None

    def __enter__(self) -> "StepReport":
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen:
            self.screen.close()

    def __call__(self, step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        self.bar.update_absolute(step + 1, total, self.still.decode_latent_to_preview_image("JPEG", x0) if self.still else None)
        if self.screen and self.colours:
            self.screen.show(self.colours(x0[:1]), LATENT_FRAME * x0.shape[2] / USUAL_RATE)


def colours_of(previewer: Any) -> Callable[[torch.Tensor], np.ndarray] | None:
    """From a latent (1, 16, T, H, W) to small frames (T or 4T - 3, h, w, 3), uint8, by what ComfyUI's previewer knows; None for a previewer of
    another kind."""
    if isinstance(previewer, latent_preview.Latent2RGBPreviewer):
        return lambda latent: small_frames(by_colour_factors(latent, previewer))
    if isinstance(previewer, latent_preview.TAEHVPreviewerImpl):
        return lambda latent: small_frames(previewer.taesd.decode(latent)[0].clamp(0, 1))
    return None


def by_colour_factors(latent: torch.Tensor, previewer: Any) -> torch.Tensor:
    """Frames (T, H, W, 3) in 0..1: core's linear colours of each latent frame, which are meant for -1..1."""
    factors = previewer.latent_rgb_factors.to(latent)
    bias = previewer.latent_rgb_factors_bias
    colours = rearrange(latent[0], "c t h w -> t h w c") @ factors.T + (0.0 if bias is None else bias.to(latent))
    return (colours / 2 + 0.5).clamp(0, 1)


def small_frames(frames: torch.Tensor) -> np.ndarray:
    """Frames (T, H, W, 3) in 0..1 as uint8, no larger than a preview."""
    width, height = small_size(frames.shape[2], frames.shape[1])
    pictures = rearrange(frames.float(), "t h w c -> t c h w")
    if (height, width) != frames.shape[1:3]:
        pictures = torch.nn.functional.interpolate(pictures, (height, width), mode="area")
    return rearrange(pictures * 255, "t c h w -> t h w c").round().to(torch.uint8).cpu().numpy()


class Screen:
    """One page on which the newest clip is shown; encoded in a thread of its own, and a clip that a newer one overtakes is never encoded."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.waiting: tuple[np.ndarray, float] | None = None
        self.shown = self.dropped = 0
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="wan22 preview", daemon=True)
        self.thread.start()

    def show(self, frames: np.ndarray, seconds: float) -> None:
        with self.changed:
            self.dropped += self.waiting is not None
            self.waiting = frames, seconds
            self.changed.notify()

    def close(self) -> None:
        """The clip that waits is shown still."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def _next(self) -> tuple[np.ndarray, float] | None:
        with self.changed:
            self.changed.wait_for(lambda: self.waiting is not None or self.closed)
            clip, self.waiting = self.waiting, None
            return clip

    def _run(self) -> None:
        while (clip := self._next()) is not None:
            try:
                picture = moving_picture(*clip)
            except (ValueError, OSError) as error:
                log.warning("no preview of this step: %s", error)
                continue
            self.page.send(EVENT, {"image": f"data:image/webp;base64,{base64.b64encode(picture).decode()}"})
            self.shown += 1
