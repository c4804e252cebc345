"""Latent: an empty video latent of a named size."""

from comfy_api.latest import io

from .engine.video.sizes import ASPECT_RATIOS, MAX_FRAMES, MAX_SIDE, MIN_FRAMES, MULTIPLE, RESOLUTIONS, video_size
from .host.video import latents
from .widgets import CATEGORY, found_by, verdict


class Wan22EmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22EmptyLatent",
            display_name="Wan 2.2 Empty Latent",
            category=CATEGORY,
            **found_by("empty video latent", "resolution", "EmptyHunyuanLatentVideo"),
            description="An empty latent for a video of a named size. Any number of frames is honoured: "
                        "the sampler makes the next 4n+1 and Wan 2.2 Decode trims the rest.",
            inputs=[
                io.Combo.Input("resolution", options=list(RESOLUTIONS), default="720p",
                               tooltip="480p: 832x480, 580p: 1024x576, 720p: 1280x720. custom: width and height below."),
                io.Combo.Input("aspect_ratio", options=list(ASPECT_RATIOS), default="16:9",
                               tooltip="All of a resolution have about the same area: 1:1 is 624, 768 or 960 squared. Not used by custom."),
                io.Int.Input("num_frames", default=81, min=MIN_FRAMES, max=MAX_FRAMES,
                             tooltip="Frames of the video before interpolation; 81 is five seconds at 16 frames per second, 1 is a picture."),
                io.Int.Input("width", default=832, min=MULTIPLE, max=MAX_SIDE, step=MULTIPLE,
                             tooltip="Pixels, a multiple of 16. Only for custom."),
                io.Int.Input("height", default=480, min=MULTIPLE, max=MAX_SIDE, step=MULTIPLE,
                             tooltip="Pixels, a multiple of 16. Only for custom."),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent"),
                     io.Int.Output("video_width", display_name="video_width"),
                     io.Int.Output("video_height", display_name="video_height")],
        )

    @classmethod
    def validate_inputs(cls, resolution: str | None = None, aspect_ratio: str | None = None,
                        width: int | None = None, height: int | None = None) -> bool | str:
        return verdict(video_size, resolution, aspect_ratio, width, height)

    @classmethod
    def execute(cls, resolution: str, aspect_ratio: str, num_frames: int, width: int, height: int) -> io.NodeOutput:
        size = video_size(resolution, aspect_ratio, width, height)
        return io.NodeOutput(latents.empty(size, num_frames), size.width, size.height)
