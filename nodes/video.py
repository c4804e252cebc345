"""Video: write the file."""

from typing import Any

from comfy_api.latest import io

from .engine.video.edit import LOOPS, OFF, Edit
from .engine.video.formats import AUTO, CONTAINERS, QUALITIES, WRITE_MODES, VideoFormat, available_codecs, check_format
from .host import messages
from .host.video import places, plan, saving
from .host.video.lazy import sound
from .widgets import CATEGORY, advanced, first_refusal, found_by, verdict


class Wan22SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveVideo",
            display_name="Wan 2.2 Save Video",
            category=CATEGORY,
            **found_by("MP4", "WebP", "GIF", "image sequence", "video combine", "reverse video", "ping-pong loop", "export"),
            description="Writes an H.264 MP4 in BT.709 colours that plays everywhere, or WebP, GIF, PNG and JPEG; "
                        "dropping it on ComfyUI restores the workflow.",
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
                                        tooltip="h264 plays everywhere. h265 and av1 are smaller, prores is for video editors, vp9 for the web. "
                                                "webp, gif, png and jpg need none: leave it at h264.")),
                advanced(io.Combo.Input("container", options=list(CONTAINERS), default=AUTO, optional=True,
                                        tooltip="auto: mp4 for h264, h265 and av1, webm for vp9, mov for prores. webp and gif are pictures that "
                                                "move, without sound; png and jpg a folder with a picture for each frame.")),
                advanced(io.Int.Input("bit_depth", default=8, min=8, max=10, step=2, optional=True,
                                      tooltip="10 keeps gradients smoother; browsers play it in av1 and vp9, not in h264. prores always has 10. "
                                              "png then has 16.")),
                advanced(io.Combo.Input("loop", options=list(LOOPS), default=OFF, optional=True,
                                        tooltip="ping-pong: forwards, then backwards, so that the end meets the beginning. "
                                                "cross-fade: the last fifth is faded into the first. Sound goes with it.")),
                advanced(io.Boolean.Input("copy_without_metadata", default=False, optional=True,
                                          tooltip="Also write a second file, ..._clean, without the workflow and the prompt, to give away.")),
                advanced(io.Boolean.Input("save_output", default=True, optional=True,
                                          tooltip="Off: write into ComfyUI's temp folder, emptied at its next start, only to look at it here.")),
                io.Audio.Input("audio", lazy=True, optional=True,
                               tooltip="Takes the place of the video's sound. Where it is longer, it is cut; where it is shorter, silence follows."),
            ],
            outputs=[io.Video.Output("saved", display_name="VIDEO"), io.String.Output("path", display_name="path")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, video_quality: str | None = None, video_write_mode: str | None = None,
                        codec: str | None = "h264", container: str | None = AUTO, bit_depth: int | None = 8, loop: str | None = OFF,
                        save_output: bool | None = True) -> bool | str:
        return first_refusal(verdict(check_format, video_quality, video_write_mode, codec, container, bit_depth), verdict(Edit, False, loop),
                             verdict(places.check_prefix, filename_prefix, container, save_output))

    @classmethod
    def check_lazy_status(cls, filename_prefix: str, codec: str = "h264", container: str = AUTO, save_output: bool = True,
                          **streams: object) -> list[str]:
        """Comes before anything is computed: the last moment to refuse for nothing."""
        waited_for: list[str] = [name for name in ("video", "audio") if name in streams and streams[name] is None]
        if waited_for:
            plan.check_way_out(cls.hidden.prompt or {}, cls.hidden.unique_id, codec, container)
            places.check_prefix(places.filled_in(filename_prefix, cls.hidden.prompt), container, save_output)
            plan.wait(cls.hidden.unique_id)
        return waited_for

    @classmethod
    def execute(cls, video: io.Video.Type, filename_prefix: str, video_quality: str, video_write_mode: str, reverse_video: bool,
                codec: str = "h264", container: str = AUTO, bit_depth: int = 8, loop: str = OFF, copy_without_metadata: bool = False,
                save_output: bool = True, audio: Any = None) -> io.NodeOutput:
        saved = saving.save_each(video, saving.Order(
            places.filled_in(filename_prefix, cls.hidden.prompt), VideoFormat(video_quality, video_write_mode, codec, container, bit_depth),
            Edit(reverse_video, loop), saving.metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo, video), sound(audio),
            copy_without_metadata, save_output))
        told = messages.report(cls.hidden.unique_id, [], list(dict.fromkeys(warning for file in saved for warning in file.warnings)))
        return io.NodeOutput(saving.on_disk(video, saved), "\n".join(str(file.path) for file in saved),
                             ui={**saving.shown(saved, container, save_output), **told, "prompt": [saving.prompt_of(video)]})
