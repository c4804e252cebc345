"""Wan 2.2 Contact Sheet with ComfyUI's own VIDEO, beside lazy ones."""

from fractions import Fraction
from types import ModuleType

import pytest
import torch

GREYS = (0.0, 0.5, 1.0)


def test_several_videos_become_one_image(pack: ModuleType):
    from comfy_api.latest import InputImpl, Types
    videos = [InputImpl.VideoFromComponents(Types.VideoComponents(images=torch.full((7, 8, 16, 3), grey), frame_rate=Fraction(16))) for grey in GREYS]
    node = pack.nodes.contact_sheet.Wan22ContactSheet
    others = {"video_2": videos[1], "video_4": videos[2]}
    (sheet,) = node.execute(videos[0], columns=3, rows=2, cell_width=64, frame_numbers=False, captions="", **others).args
    assert sheet.dtype == torch.float32 and sheet.shape[0] == 1 and sheet.shape[-1] == 3
    blocks = sheet[0].tensor_split(3)  # without headings all are of one height
    assert [float(block[20, 20, 0]) for block in blocks] == pytest.approx(GREYS, abs=1 / 255)


def test_bad_settings_are_refused_before_anything_runs(pack: ModuleType):
    validate = pack.nodes.contact_sheet.Wan22ContactSheet.validate_inputs
    assert validate(columns=5, rows=1, cell_width=320, frame_numbers=True, captions="") is True
    assert "cell_width is 8; it must be between 64 and 2048" in validate(columns=5, rows=1, cell_width=8, frame_numbers=True, captions="")
