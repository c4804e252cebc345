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


class Page:
    """In place of a page of the front end: keeps what it is sent; `slow` waits with each picture until it is let go on."""

    def __init__(self, slow: threading.Event | None = None, node_id: str = "9") -> None:
        self.sent: list[dict[str, Any]] = []
        self.slow, self.node_id = slow, node_id

    def send(self, event: str, data: dict[str, Any]) -> None:
        if self.slow:
            self.slow.wait(60)
        assert event == "wan22.preview"
        self.sent.append(data)

    @property
    def pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(base64.b64decode(data["image"].removeprefix("data:image/webp;base64,")))) for data in self.sent]


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
    plain, page = sampled(sample), Page()
    switched(monkeypatch, "Auto")
    monkeypatch.setattr(previews, "page_at_work", lambda: page)
    assert torch.equal(sampled(sample), plain)
    assert 1 <= len(page.sent) <= STEPS
    assert all((picture.format, picture.n_frames, picture.size) == ("WEBP", SHAPE[2], (SHAPE[4], SHAPE[3])) for picture in page.pictures)
    assert not [thread for thread in threading.enumerate() if thread.name == "wan22 preview"]


@pytest.mark.parametrize(("node_id", "stills"), [("9", 0), ("5:9", STEPS)])
def test_what_stands_for_a_subgraph_shows_the_still_picture_of_core(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch, node_id: str,
                                                                    stills: int) -> None:
    switched(monkeypatch, "Auto")
    monkeypatch.setattr(previews, "page_at_work", lambda: Page(node_id=node_id))
    shown: list[Any] = []
    bar = importlib.import_module("comfy.utils").ProgressBar
    monkeypatch.setattr(bar, "update_absolute", lambda self, value, total=None, preview=None: shown.append(preview))
    sampled(sample)
    assert len([preview for preview in shown if preview]) == stills


def test_a_slow_page_holds_nothing_up_and_sees_the_newest(previews: Any) -> None:
    gate = threading.Event()
    page = Page(gate)
    screen = previews.Screen(page)
    for grey in range(0, 250, 50):
        screen.show(np.full((2, 8, 8, 3), grey, np.uint8), 1.0)
    gate.set()
    screen.close()
    assert screen.shown == len(page.sent) <= 2 and screen.shown + screen.dropped == 5
    assert round(float(np.asarray(page.pictures[-1].convert("RGB")).mean()) / 50) == 4


@pytest.mark.parametrize("why", ["nobody looks", "previews are switched off"])
def test_nothing_is_made_where_nobody_looks(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    switched(monkeypatch, "Auto" if why == "nobody looks" else "NoPreviews")
    if why == "previews are switched off":
        monkeypatch.setattr(previews, "page_at_work", Page)
    monkeypatch.setattr(previews, "Screen", lambda page: pytest.fail("a preview was made"))
    sampled(sample)


def test_a_run_that_fails_or_is_interrupted_leaves_no_thread(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(monkeypatch, "Auto")
    monkeypatch.setattr(previews, "page_at_work", Page)
    monkeypatch.setattr(previews, "small_frames", lambda frames: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(sample)
    assert not [thread for thread in threading.enumerate() if thread.name == "wan22 preview"]


def test_the_colours_are_those_of_core_for_every_latent_frame(previews: Any, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(monkeypatch, "Auto")
    preview, latent = importlib.import_module("latent_preview"), torch.randn(SHAPE)
    previewer = preview.get_previewer(torch.device("cpu"), sample.experts[0].model.latent_format)
    ours = previews.colours_of(previewer)(latent)
    cores = [np.asarray(previewer.decode_latent_to_preview(latent[:, :, frame : frame + 1])) for frame in range(SHAPE[2])]
    assert np.abs(ours.astype(int) - np.stack(cores)).max() <= 1  # core truncates where we round
