"""Contact sheet: frames of several videos on one picture."""

import torch
from comfy_api.latest import io

from .engine.contact_sheet.sheet import MAX_COLUMNS, MAX_ROWS, MAX_WIDTH, MIN_WIDTH, Sheet, contact_sheet
from .host.video.lazy import watched_stream
from .widgets import CATEGORY, found_by, verdict

OTHERS = [f"video_{number}" for number in range(2, 7)]


class Wan22ContactSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22ContactSheet",
            display_name="Wan 2.2 Contact Sheet",
            category=CATEGORY,
            **found_by("grid", "XY plot", "compare seeds", "storyboard"),
            description="Puts frames of one or more videos on one picture, each clip below the other, to compare seeds and settings. "
                        "A batch is several clips.",
            inputs=[
                io.Video.Input("video", tooltip="Any VIDEO. Its shape is that of the cells; videos of another shape get bars."),
                io.Int.Input("columns", default=5, min=1, max=MAX_COLUMNS, tooltip="Frames side by side, spread evenly from the first to the last."),
                io.Int.Input("rows", default=1, min=1, max=MAX_ROWS, tooltip="Rows of frames of each clip."),
                io.Int.Input("cell_width", default=320, min=MIN_WIDTH, max=MAX_WIDTH, tooltip="Width of a frame on the sheet, in pixels."),
                io.Boolean.Input("frame_numbers", default=True, tooltip="Number the frames, and the clips where there are several, from 0."),
                io.String.Input("captions", multiline=True, default="", tooltip="A line for each clip. An empty line is no caption."),
                *(io.Video.Input(name, optional=True, tooltip="Another VIDEO, below those before it.") for name in OTHERS),
            ],
            outputs=[io.Image.Output("sheet", display_name="IMAGE")],
        )

    @classmethod
    def validate_inputs(cls, columns: int | None = None, rows: int | None = None, cell_width: int | None = None, frame_numbers: bool | None = None,
                        captions: str | None = None) -> bool | str:
        return verdict(Sheet, columns, rows, cell_width, frame_numbers, captions)

    @classmethod
    def execute(cls, video: io.Video.Type, columns: int, rows: int, cell_width: int, frame_numbers: bool, captions: str,
                **others: io.Video.Type) -> io.NodeOutput:
        videos = [video, *(others[name] for name in OTHERS if name in others)]
        picture = contact_sheet([watched_stream(each) for each in videos], Sheet(columns, rows, cell_width, frame_numbers, captions))
        return io.NodeOutput(torch.from_numpy(picture)[None] / 255)
