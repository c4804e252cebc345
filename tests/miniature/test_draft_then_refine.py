"""The workflow `draft_then_refine`, drawn by the miniature: the refined clip is the draft that was picked, at the new size."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import videos
import workflows
from comfyui import ComfyUI, Prompt, link
from engine.contact_sheet.sheet import GAP
from miniature import export
from miniature.judge import Parts, Track, judge
from miniature.scenes import FRAMES, SIZE, scene_of

PROMPT = "a white circle moves to the right over a blue background"
LARGE = 80  # pixels: further from the size that it was trained for, the miniature loses shapes
DRAFTS = 3
STEPS = 6


@pytest.fixture(scope="module")
def miniature_models(models: Path) -> Iterator[None]:
    """The miniature's files beside those of the running ComfyUI."""
    linked = [models / folder / path.name for folder in ("diffusion_models", "text_encoders", "vae") for path in (export.MODELS / folder).iterdir()]
    for path in linked:
        link(export.MODELS / path.parent.name / path.name, path)
    yield
    for path in linked:
        path.unlink()


@dataclass(frozen=True)
class Studio:
    """The workflow at the miniature's sizes, with the whole drafts on the contact sheet."""

    server: ComfyUI
    object_info: dict[str, Any]

    def prompt(self, refined: bool, size: int = 0, **changes: Any) -> Prompt:
        shipped = workflows.shipped("draft_then_refine")
        prompt = workflows.to_prompt(workflows.unmuted(shipped) if refined else shipped, self.object_info)
        changes |= {"prompt": PROMPT, "resolution": "custom", "num_frames": FRAMES, "amount": DRAFTS, "steps": STEPS, "columns": FRAMES,
                    "cell_width": SIZE, "frame_numbers": False, **export.FILES}
        sides = {"Wan22EmptyLatent": SIZE, "LatentUpscale": size}
        for node in prompt.values():
            side = sides.get(node["class_type"], 0)
            node["inputs"].update({name: value for name, value in {**changes, "width": side, "height": side}.items() if name in node["inputs"]})
        return prompt

    def drafts(self) -> torch.Tensor:
        """What the sheet shows: clips (N, T, H, W, 3)."""
        ((picture,),) = (output["images"] for output in self.server.run(self.prompt(refined=False)).values() if "images" in output)
        sheet = np.asarray(Image.open(self.server.base / "temp" / picture["subfolder"] / picture["filename"]).convert("RGB"))
        cells = sheet[GAP:, GAP:].reshape(DRAFTS, SIZE + GAP, FRAMES, SIZE + GAP, 3)[:, :SIZE, :, :SIZE]
        return torch.from_numpy(np.ascontiguousarray(cells.transpose(0, 2, 1, 3, 4))) / 255

    def refined(self, pick: int, size: int, denoise: float = 0) -> torch.Tensor:
        """The clip (T, H, W, 3) that is made of a draft."""
        prompt = self.prompt(refined=True, size=size, batch_index=pick)
        second = next(node["inputs"] for node in prompt.values() if node["inputs"].get("denoise", 1) < 1)
        second["denoise"] = denoise or second["denoise"]
        (path,) = self.server.saved_videos(self.server.run(prompt))
        return videos.rgb(path)


@pytest.fixture(scope="module")
def studio(server: ComfyUI, object_info: dict[str, Any], miniature_models: None) -> Studio:
    return Studio(server, object_info)


@pytest.fixture(scope="module")
def drafts(studio: Studio) -> torch.Tensor:
    return studio.drafts()


def test_the_refined_clip_has_the_new_size_and_the_drafts_shape_colour_and_direction(studio: Studio, drafts: torch.Tensor) -> None:
    refined, scene = studio.refined(DRAFTS - 1, LARGE), scene_of(PROMPT)
    assert refined.shape == (FRAMES, LARGE, LARGE, 3)
    for clip in (drafts[-1], refined):
        assert judge(clip).agrees(scene, "shape", "colour", "direction")


def test_each_pick_goes_the_way_of_its_own_draft(studio: Studio, drafts: torch.Tensor) -> None:
    """At the drafts' size, with little drawn anew: drafts of one prompt are a pixel or two apart, and at another size it strays further."""
    ways = [way(draft) for draft in drafts]
    first, second = max(combinations(range(DRAFTS), 2), key=lambda pair: apart(ways[pair[0]], ways[pair[1]]))
    for own, other in ((first, second), (second, first)):
        refined = way(studio.refined(own, SIZE, denoise=0.1))
        assert apart(refined, ways[own]) < apart(refined, ways[other])


def way(clip: torch.Tensor) -> np.ndarray:
    """Centre (T, 2) of the shape, in pixels."""
    return Track.of(Parts.of(clip).alpha).centre


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of two ways, in pixels."""
    return float(np.linalg.norm(one - other, axis=1).mean())
