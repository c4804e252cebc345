"""Sampling: one node across both experts."""

from comfy_api.latest import io

from .engine.sampling.experts import ACCELERATIONS, BOUNDARY, MAX_GUIDANCE, SamplingSettings, check_methods
from .engine.sampling.schedules import MAX_SHIFT, MAX_STEPS
from .engine.sampling.solvers import SOLVERS
from .host import messages, sampling
from .widgets import CATEGORY, advanced, verdict


class Wan22Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Sampler",
            display_name="Wan 2.2 Sampler",
            category=CATEGORY,
            description="Samples the video in one run over both experts: each step goes to the expert trained for its noise level, "
                        "and the solver's history crosses the switch.",
            inputs=[
                io.Model.Input("high_noise", tooltip="The high-noise expert, with its LoRAs."),
                io.Model.Input("low_noise", tooltip="The low-noise expert, with its LoRAs."),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="From Wan 2.2 Empty Latent."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="The same seed and settings give the same video."),
                io.Int.Input("steps", default=27, min=1, max=MAX_STEPS,
                             tooltip="Steps of both experts together. 27 is the hosted default, 40 the official one, 4 with Lightning LoRAs."),
                io.Float.Input("guidance_scale", default=3.5, min=0.0, max=MAX_GUIDANCE, step=0.1,
                               tooltip="Guidance of the high-noise expert. 1 needs half the time and ignores the negative prompt."),
                io.Float.Input("guidance_scale_2", default=4.0, min=0.0, max=MAX_GUIDANCE, step=0.1,
                               tooltip="Guidance of the low-noise expert."),
                io.Float.Input("shift", default=5.0, min=0.01, max=MAX_SHIFT, step=0.1,
                               tooltip="More shift spends more steps at high noise, on motion and layout. 5 hosted and Lightning, 12 official."),
                io.Combo.Input("solver", options=list(SOLVERS), default="unipc",
                               tooltip="unipc and dpm++: the official solvers with their own schedules. euler: for Lightning LoRAs."),
                io.Combo.Input("acceleration", options=list(ACCELERATIONS), default="regular",
                               tooltip="regular may skip steps that change little; in this version it computes every step, like none."),
                advanced(io.Float.Input("boundary", default=BOUNDARY, min=0.0, max=1.0, step=0.005,
                                        tooltip="Noise level at which the low-noise expert takes over. Wan 2.2 T2V was trained for 0.875.")),
            ],
            outputs=[io.Latent.Output("samples", display_name="samples"), io.String.Output("schedule", display_name="schedule")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None, acceleration: str | None = None) -> bool | str:
        return verdict(check_methods, solver, acceleration)

    @classmethod
    def execute(cls, high_noise: io.Model.Type, low_noise: io.Model.Type, positive: io.Conditioning.Type, negative: io.Conditioning.Type,
                latent_image: io.Latent.Type, seed: int, steps: int, guidance_scale: float, guidance_scale_2: float, shift: float,
                solver: str, acceleration: str, boundary: float) -> io.NodeOutput:
        settings = SamplingSettings(steps, guidance_scale, guidance_scale_2, shift, solver, acceleration, boundary)
        schedule = sampling.report(settings)
        messages.tell(cls.hidden.unique_id, schedule)
        return io.NodeOutput(sampling.sample(high_noise, low_noise, positive, negative, latent_image, seed, settings), schedule)
