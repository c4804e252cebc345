"""Video: write the file."""

from comfy_api.latest import io, ui

from .engine.video.encode import CRF, PRESETS, check_encoder
from .host import video as videos
from .widgets import CATEGORY, verdict


class Wan22SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveVideo",
            display_name="Wan 2.2 Save Video",
            category=CATEGORY,
            description="Writes an H.264 MP4 in BT.709 colours that plays everywhere; dropping it on ComfyUI restores the workflow.",
            inputs=[
                io.Video.Input("video"),
                io.String.Input("filename_prefix", default="video/Wan22",
                                tooltip="Below ComfyUI's output folder; %year%, %month%, %day%, %width% and %height% are filled in."),
                io.Combo.Input("video_quality", options=list(CRF), default="high",
                               tooltip="Picture quality: " + ", ".join(f"{name} is CRF {crf}" for name, crf in CRF.items()) + "."),
                io.Combo.Input("video_write_mode", options=list(PRESETS), default="balanced",
                               tooltip="Encoder effort at the same quality: fast writes soonest, small makes the smallest file."),
                io.Boolean.Input("reverse_video", default=False, tooltip="Write the last frame first."),
            ],
            outputs=[io.Video.Output("saved", display_name="VIDEO"), io.String.Output("path", display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, video_quality: str | None = None, video_write_mode: str | None = None) -> bool | str:
        encoder = verdict(check_encoder, video_quality, video_write_mode)
        return verdict(videos.check_prefix, filename_prefix) if encoder is True else encoder

    @classmethod
    def execute(cls, video: io.Video.Type, filename_prefix: str, video_quality: str, video_write_mode: str,
                reverse_video: bool) -> io.NodeOutput:
        target = videos.new_file(filename_prefix, video.get_dimensions())
        saved = videos.save(video, target, video_quality, video_write_mode, reverse_video,
                            videos.metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo))
        shown = ui.SavedResult(target.path.name, target.subfolder, io.FolderType.output)
        return io.NodeOutput(saved, str(target.path), ui=ui.PreviewVideo([shown]))
