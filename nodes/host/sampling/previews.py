"""The clip on the node that samples it, moving, after each step: from the latent's colours, or from a small decoder where ComfyUI has one.

ComfyUI's own preview shows one frame. Its switch holds here too: with `--preview-method none` nothing is made. The picture goes to the page that runs
the prompt, or to the program whose prompt it is and that asks for it, and to nobody else.
"""

import base64
import math
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from einops import rearrange

from ...engine.log import log
from ...engine.video.moving_picture import SIDE, moving_picture, small_size
from ...engine.video.sizes import decoded_frames
from ..models.memory import Model
from ..video.plan import rate_of_clip
from ..viewers import Viewer, viewer_at_work

USUAL_RATE = 16  # frames per second of Wan 2.2
DECODED_SIDE = 64  # latent pixels
Colours = Callable[[torch.Tensor], np.ndarray]


def shown_rate() -> float:
    """Frames per second of the clip that the running node makes, as the prompt says."""
    state, context = get_progress_state(), get_executing_context()
    rate = rate_of_clip(state.dynprompt.original_prompt, context.node_id) if state and context else None
    return float(rate or USUAL_RATE)


class StepReport:
    """The callback of a solver: moves the bar, and hands the clip of each step that somebody looks at to a thread that shows it. `with` ends the
    thread."""

    def __init__(self, model: Model, steps: int) -> None:
        self.model, self.bar, self.viewer, self.rate = model, comfy.utils.ProgressBar(steps), viewer_at_work(), shown_rate()
        self.screen: Screen | None = None

    def __enter__(self) -> "StepReport":
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen:
            self.screen.close()

    def __call__(self, step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        viewer = self.viewer if self.viewer and self.viewer.looks() else None
        still = viewer and self.previewer and not self.colours
        self.bar.update_absolute(step + 1, total, self.previewer.decode_latent_to_preview_image("JPEG", x0) if still else None)
        if viewer and self.colours:
            self.screen = self.screen or Screen(viewer)
            self.screen.show(self.colours(x0), decoded_frames(x0.shape[2]) / self.rate)

    @cached_property
    def previewer(self) -> Any:
        """ComfyUI's own, which may load a small decoder; None where its switch is off."""
        return latent_preview.get_previewer(self.model.load_device, self.model.model.latent_format)

    @cached_property
    def colours(self) -> Colours | None:
        return colours_of(self.previewer)


def colours_of(previewer: Any) -> Colours | None:
    """From latents (B, 16, T, H, W) to small frames (T or 4T - 3, h, w, 3), uint8, by what ComfyUI's previewer knows, the clips of a batch side by
    side; None for a previewer of another kind."""
    if isinstance(previewer, latent_preview.Latent2RGBPreviewer):
        return lambda latents: side_by_side([by_colour_factors(latent, previewer) for latent in latents.split(1)])
    if isinstance(previewer, latent_preview.TAEHVPreviewerImpl):
        return lambda latents: side_by_side([by_small_decoder(latent, previewer) for latent in latents.split(1)])
    return None


def side_by_side(clips: list[torch.Tensor]) -> np.ndarray:
    """Clips (T, H, W, 3) in 0..1 as one of uint8, row by row in about as many rows as columns; no larger than a preview."""
    columns = math.ceil(math.sqrt(len(clips)))
    small = [small_frames(clip, SIDE // columns) for clip in clips]
    small += [np.zeros_like(small[0])] * (-len(small) % columns)
    return rearrange(np.stack(small), "(rows columns) t h w c -> t (rows h) (columns w) c", columns=columns)


def by_colour_factors(latent: torch.Tensor, previewer: Any) -> torch.Tensor:
    """Frames (T, H, W, 3) in 0..1: core's linear colours of each latent frame, which are meant for -1..1."""
    factors = previewer.latent_rgb_factors.to(latent)
    bias = previewer.latent_rgb_factors_bias
    colours = rearrange(latent[0], "c t h w -> t h w c") @ factors.T + (0.0 if bias is None else bias.to(latent))
    return (colours / 2 + 0.5).clamp(0, 1)


def by_small_decoder(latent: torch.Tensor, previewer: Any) -> torch.Tensor:
    """Frames (4T - 3, H, W, 3) in 0..1, no side longer than 8 * DECODED_SIDE pixels: at its own size, the frames of a clip would take as much memory
    as those of the video, and more time than a preview may."""
    width, height = small_size(latent.shape[4], latent.shape[3], DECODED_SIDE)
    small = torch.nn.functional.interpolate(latent, (latent.shape[2], height, width), mode="area")
    frames: torch.Tensor = previewer.taesd.decode(small)[0]
    return frames.clamp(0, 1)


def small_frames(frames: torch.Tensor, side: int) -> np.ndarray:
    """Frames (T, H, W, 3) in 0..1 as uint8, no side longer than `side` pixels."""
    width, height = small_size(frames.shape[2], frames.shape[1], side)
    pictures = rearrange(frames.float(), "t h w c -> t c h w")
    if (height, width) != frames.shape[1:3]:
        pictures = torch.nn.functional.interpolate(pictures, (height, width), mode="area")
    return rearrange(pictures * 255, "t c h w -> t h w c").round().to(torch.uint8).cpu().numpy()


class Screen:
    """Where a viewer sees the newest clip; encoded in a thread of its own, and a clip that a newer one overtakes is never encoded."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
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
            self.viewer.show(f"data:image/webp;base64,{base64.b64encode(picture).decode()}")
            self.shown += 1
