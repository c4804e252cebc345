"""Decode: latent to video."""

from comfy_api.latest import io

from .host.video import decoding
from .widgets import CATEGORY, found_by


class Wan22Decode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Decode",
            display_name="Wan 2.2 Decode",
            category=CATEGORY,
            **found_by("VAE decode", "create video"),
            description="Turns the latent into a VIDEO with exactly the frames that were asked for. It decodes a few frames at a time, while "
                        "Save Video writes them.",
            inputs=[
                io.Latent.Input("samples", tooltip="From Wan 2.2 Sampler."),
                io.Vae.Input("vae", tooltip="wan_2.1_vae.safetensors, from core Load VAE. Wan 2.2 A14B uses the 2.1 VAE."),
                io.Int.Input("frames_per_second", default=16, min=decoding.MIN_RATE, max=decoding.MAX_RATE,
                             tooltip="Frame rate of the video; Wan 2.2 was trained at 16."),
            ],
            outputs=[io.Video.Output("video", display_name="VIDEO")],
        )

    @classmethod
    def execute(cls, samples: io.Latent.Type, vae: io.Vae.Type, frames_per_second: int) -> io.NodeOutput:
        return io.NodeOutput(decoding.decode(samples, vae, frames_per_second))
