"""The clip that moves on the sampler: made of the latent of each step, sent to the page that runs the prompt, and never in the way."""

import base64
import importlib
import io
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sampling_runs import SHAPE, Sample

STEPS = 6


class Viewer:
    """In place of a page or a program: keeps what it is shown; `slow` waits with each picture until it is let go on."""

    def __init__(self, slow: threading.Event | None = None) -> None:
        self.shown: list[str] = []
        self.slow, self.here = slow, True

    def looks(self) -> bool:
        return self.here

    def show(self, picture: str) -> None:
        if self.slow:
            self.slow.wait(60)
        self.shown.append(picture)

    @property
    def pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(base64.b64decode(picture.removeprefix("data:image/webp;base64,")))) for picture in self.shown]


@pytest.fixture
def previews(pack: ModuleType) -> Any:
    return importlib.import_module(f"{pack.__name__}.nodes.host.sampling.previews")


def switched(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """As --preview-method does it; without it, ComfyUI shows none."""
    preview = importlib.import_module("latent_preview")
    monkeypatch.setattr(preview.args, "preview_method", getattr(preview.LatentPreviewMethod, method))


def sampled(sample: Sample) -> torch.Tensor:
    return sample.latent({"samples": torch.zeros(SHAPE)}, "euler", STEPS, 5.0, (1.0, 1.0), 0.875)


def test_each_step_shows_the_whole_clip_and_changes_no_bit(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, viewer = sampled(sample), Viewer()
    switched(monkeypatch, "Auto")
    monkeypatch.setattr(previews, "viewer_at_work", lambda: viewer)
    assert torch.equal(sampled(sample), plain)
    assert 1 <= len(viewer.shown) <= STEPS
    assert all((picture.format, picture.n_frames, picture.size) == ("WEBP", SHAPE[2], (SHAPE[4], SHAPE[3])) for picture in viewer.pictures)
    assert not [thread for thread in threading.enumerate() if thread.name == "wan22 preview"]


def test_clips_of_a_batch_stand_side_by_side(previews: Any) -> None:
    clips = [torch.full((2, 4, 6, 3), grey / 255) for grey in (40, 80, 120)]
    shown = previews.side_by_side(clips)
    assert shown.shape == (2, 8, 12, 3)
    assert [int(shown[0, y, x, 0]) for y in (2, 6) for x in (3, 9)] == [40, 80, 120, 0]
    assert previews.side_by_side([torch.zeros(1, 480, 832, 3)] * 5).shape[2] <= previews.SIDE


def test_who_looks_away_costs_nothing_and_who_comes_late_sees_the_rest(previews: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Viewer()
    viewer.here = False
    monkeypatch.setattr(previews, "viewer_at_work", lambda: viewer)
    monkeypatch.setattr(previews.StepReport, "previewer", property(lambda self: pytest.fail("nobody looks")))
    with previews.StepReport(None, 2) as report:
        report(0, torch.zeros(SHAPE), torch.zeros(SHAPE), 2)
        assert report.screen is None
        monkeypatch.setattr(previews.StepReport, "previewer", property(lambda self: object()))
        monkeypatch.setattr(previews, "colours_of", lambda previewer: lambda latents: np.zeros((2, 8, 8, 3), np.uint8))
        viewer.here = True
        report(1, torch.zeros(SHAPE), torch.zeros(SHAPE), 2)
    assert len(viewer.shown) == 1


def test_a_slow_page_holds_nothing_up_and_sees_the_newest(previews: Any) -> None:
    gate = threading.Event()
    viewer = Viewer(gate)
    screen = previews.Screen(viewer)
    for grey in range(0, 250, 50):
        screen.show(np.full((2, 8, 8, 3), grey, np.uint8), 1.0)
    gate.set()
    screen.close()
    assert screen.shown == len(viewer.shown) <= 2 and screen.shown + screen.dropped == 5
    assert round(float(np.asarray(viewer.pictures[-1].convert("RGB")).mean()) / 50) == 4


@pytest.mark.parametrize("why", ["nobody looks", "previews are switched off"])
def test_nothing_is_made_where_nobody_looks(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    switched(monkeypatch, "Auto" if why == "nobody looks" else "NoPreviews")
    if why == "previews are switched off":
        monkeypatch.setattr(previews, "viewer_at_work", Viewer)
    monkeypatch.setattr(previews, "Screen", lambda viewer: pytest.fail("a preview was made"))
    sampled(sample)


def test_a_run_that_fails_or_is_interrupted_leaves_no_thread(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(monkeypatch, "Auto")
    monkeypatch.setattr(previews, "viewer_at_work", Viewer)
    monkeypatch.setattr(previews, "small_frames", lambda frames, side: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(sample)
    assert not [thread for thread in threading.enumerate() if thread.name == "wan22 preview"]


def test_a_small_decoder_shows_every_frame(previews: Any) -> None:
    """Its weights are drawn: whether it shows the right ones is ComfyUI's."""
    weights = importlib.import_module("comfy.taesd.taehv").TAEHV(16).state_dict()
    generator = torch.Generator().manual_seed(1)
    drawn = {name: torch.randn(weight.shape, generator=generator) / max(1, weight[0].numel()) ** 0.5 for name, weight in weights.items()}
    previewer = importlib.import_module("latent_preview").TAEHVPreviewerImpl(importlib.import_module("comfy.sd").VAE(drawn))
    latents = torch.randn(1, 16, 3, 2, 4, generator=generator)
    shown = previews.colours_of(previewer)(latents)
    assert shown.shape == (9, 16, 32, 3)
    assert np.abs(shown[0].astype(int) - np.asarray(previewer.decode_latent_to_preview(latents))).max() <= 1


def test_the_colours_are_those_of_core_for_every_latent_frame(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(monkeypatch, "Auto")
    preview, latent = importlib.import_module("latent_preview"), torch.randn(SHAPE)
    previewer = preview.get_previewer(torch.device("cpu"), sample.experts[0].model.latent_format)
    ours = previews.colours_of(previewer)(latent)
    cores = [np.asarray(previewer.decode_latent_to_preview(latent[:, :, frame : frame + 1])) for frame in range(SHAPE[2])]
    assert np.abs(ours.astype(int) - np.stack(cores)).max() <= 1  # core truncates where we round
