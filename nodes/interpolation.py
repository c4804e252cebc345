"""Interpolation: new frames between the frames of a video."""

from comfy_api.latest import io

from .engine.interpolation.stream import MOST_NEW_FRAMES, SCENE_CUT
from .host import messages
from .host.video import interpolation
from .sockets import AnyInterpolatorModel, InterpolatorModel
from .widgets import CATEGORY, advanced, found_by, verdict


class Wan22InterpolatorLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22InterpolatorLoader",
            display_name="Wan 2.2 Interpolator Loader",
            category=CATEGORY,
            **found_by("RIFE", "FILM", "optical flow", "load frame interpolation model"),
            description="Loads a RIFE (4.0 to 4.26, also lite and heavy) or FILM network, in any file format that is around, or takes optical flow, "
                        "which needs no file.",
            inputs=[io.Combo.Input("model", options=interpolation.interpolator_names(),
                                   tooltip="A file in models/frame_interpolation; film and rife take the one that is there, flow needs none, none "
                                           "makes no frames. RIFE is fast; FILM is slow and good at large motion; flow runs on the CPU. Download: "
                                           "huggingface.co/Comfy-Org/frame_interpolation")],
            outputs=[InterpolatorModel.Output("interpolator", display_name="interpolator")],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        return verdict(interpolation.check_interpolator_choice, model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None) -> str:
        return interpolation.file_chosen_by(model) if model else ""

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        return io.NodeOutput(*(interpolation.load_interpolator(name) for name in messages.counted((model,))))


class Wan22Interpolate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Interpolate",
            display_name="Wan 2.2 Interpolate",
            category=CATEGORY,
            **found_by("RIFE", "FILM", "frame interpolation", "smooth", "slow motion", "fps"),
            description="Puts new frames between the frames of a video, while it streams. The given frames stay as they are, and at a scene cut "
                        "nothing is blended.",
            inputs=[
                io.Video.Input("video", tooltip="Any VIDEO."),
                AnyInterpolatorModel.Input("interpolator", tooltip="From Wan 2.2 Interpolator Loader, or from core's loader of such models."),
                io.Int.Input("num_interpolated_frames", default=1, min=0, max=MOST_NEW_FRAMES,
                             tooltip="New frames between each two: N frames become (N - 1) * (this + 1) + 1. 0 passes the video through."),
                io.Boolean.Input("adjust_fps_for_interpolation", default=True,
                                 tooltip="On: more frames per second, the same duration. Off: the same frames per second, slow motion."),
                advanced(io.Float.Input("scene_cut", default=SCENE_CUT, min=0.0, max=1.0, step=0.05,
                                        tooltip="Two frames that look less alike than this, once bent to one moment, are a cut: the frame before it "
                                                "is held. 0 finds no cuts.")),
            ],
            outputs=[io.Video.Output("interpolated", display_name="VIDEO")],
        )

    @classmethod
    def execute(cls, video: io.Video.Type, interpolator: InterpolatorModel.Type, num_interpolated_frames: int, adjust_fps_for_interpolation: bool,
                scene_cut: float) -> io.NodeOutput:
        return io.NodeOutput(interpolation.interpolated(video, interpolator, num_interpolated_frames, adjust_fps_for_interpolation, scene_cut))
