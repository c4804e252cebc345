"""Video: write the file."""

from comfy_api.latest import io, ui

from .engine.video.formats import AUTO, MUXERS, QUALITIES, WRITE_MODES, VideoFormat, available_codecs, check_format, check_rate
from .host import messages
from .host.video import plan, saving
from .widgets import CATEGORY, advanced, found_by, verdict


class Wan22SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveVideo",
            display_name="Wan 2.2 Save Video",
            category=CATEGORY,
            **found_by("MP4", "video combine", "reverse video", "export"),
            description="Writes an H.264 MP4 in BT.709 colours that plays everywhere; dropping it on ComfyUI restores the workflow.",
            inputs=[
                io.Video.Input("video", lazy=True, tooltip="Any VIDEO."),
                io.String.Input("filename_prefix", default="video/Wan22",
                                tooltip="Below ComfyUI's output folder; %width%, %height%, %date:yyyy-MM-dd% and %Node.widget% are filled in."),
                io.Combo.Input("video_quality", options=list(QUALITIES), default="high",
                               tooltip="Picture quality. high is hard to tell from the original, maximum is for further editing."),
                io.Combo.Input("video_write_mode", options=list(WRITE_MODES), default="balanced",
                               tooltip="Encoder effort at the same quality: fast writes soonest, small makes the smallest file."),
                io.Boolean.Input("reverse_video", default=False, tooltip="Write the last frame first; sound runs backwards with it."),
                advanced(io.Combo.Input("codec", options=available_codecs(), default="h264", optional=True,
                                        tooltip="h264 plays everywhere. h265 and av1 are smaller, prores is for video editors, vp9 for the web.")),
                advanced(io.Combo.Input("container", options=[AUTO, *MUXERS], default=AUTO, optional=True,
                                        tooltip="auto: mp4 for h264, h265 and av1, webm for vp9, mov for prores.")),
                advanced(io.Int.Input("bit_depth", default=8, min=8, max=10, step=2, optional=True,
                                      tooltip="10 keeps gradients smoother; browsers play it in av1 and vp9, not in h264. prores always has 10.")),
            ],
            outputs=[io.Video.Output("saved", display_name="VIDEO"), io.String.Output("path", display_name="path")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, video_quality: str | None = None, video_write_mode: str | None = None,
                        codec: str | None = "h264", container: str | None = AUTO, bit_depth: int | None = 8) -> bool | str:
        encoder = verdict(check_format, video_quality, video_write_mode, codec, container, bit_depth)
        return verdict(saving.check_prefix, filename_prefix) if encoder is True else encoder

    @classmethod
    def check_lazy_status(cls, video: io.Video.Type | None = None, codec: str = "h264", **_: object) -> list[str]:
        """Comes before anything is computed: the last moment to refuse for nothing."""
        if video is not None:
            return []
        rate = plan.planned_rate(cls.hidden.prompt or {}, cls.hidden.unique_id)
        if rate is not None:
            check_rate(codec, rate)
        plan.wait(cls.hidden.unique_id)
        return ["video"]

    @classmethod
    def execute(cls, video: io.Video.Type, filename_prefix: str, video_quality: str, video_write_mode: str, reverse_video: bool,
                codec: str = "h264", container: str = AUTO, bit_depth: int = 8) -> io.NodeOutput:
        video_format = VideoFormat(video_quality, video_write_mode, codec, container, bit_depth)
        tags = saving.metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo, video)
        saved = saving.save_each(video, saving.filled_in(filename_prefix, cls.hidden.prompt), video_format, reverse_video, tags)
        told = messages.report(cls.hidden.unique_id, [], list(dict.fromkeys(warning for file in saved for warning in file.warnings)))
        shown = ui.PreviewVideo([ui.SavedResult(file.path.name, file.subfolder, io.FolderType.output) for file in saved])
        return io.NodeOutput(saving.on_disk(video, saved), "\n".join(str(file.path) for file in saved),
                             ui={**shown.as_dict(), **told, "prompt": [saving.prompt_of(video)]})
