"""Sampling: one node across both experts, and the same pieces apart for SamplerCustomAdvanced."""

from comfy_api.latest import io

from .engine.choices import check_choice
from .engine.sampling.experts import BOUNDARY, MAX_GUIDANCE, MIN_DENOISE, OPENING_GUIDANCE, Guidance, Schedule, check_methods, check_opening
from .engine.sampling.forecast import ACCELERATIONS
from .engine.sampling.schedules import MAX_SHIFT
from .engine.sampling.solvers import SOLVERS, solver_named
from .engine.spans import MAX_STEPS
from .host import messages
from .host.sampling import run
from .host.video import latents
from .widgets import CATEGORY, advanced, first_refusal, found_by, verdict


def experts_and_prompts() -> list[io.Input]:
    return [
        io.Model.Input("high_noise", tooltip="The high-noise expert, with its LoRAs."),
        io.Model.Input("low_noise", tooltip="The low-noise expert, with its LoRAs."),
        io.Conditioning.Input("positive", tooltip="What the video shows, from Wan 2.2 Text Encode."),
        io.Conditioning.Input("negative", optional=True, tooltip="What it should not show. Not needed when both guidance scales are 1."),
    ]


def guidance_scales() -> list[io.Input]:
    return [
        io.Float.Input("guidance_scale", default=3.5, min=0.0, max=MAX_GUIDANCE, step=0.1,
                       tooltip="Guidance of the high-noise expert. 1 needs half the time and ignores the negative prompt."),
        io.Float.Input("guidance_scale_2", default=4.0, min=0.0, max=MAX_GUIDANCE, step=0.1, tooltip="Guidance of the low-noise expert."),
    ]


def steps_input() -> io.Input:
    return io.Int.Input("steps", default=27, min=1, max=MAX_STEPS,
                        tooltip="Steps of both experts together. 27 is the hosted default, 40 the official one, 4 with Lightning LoRAs.")


def shift_input() -> io.Input:
    return io.Float.Input("shift", default=5.0, min=0.01, max=MAX_SHIFT, step=0.1,
                          tooltip="More shift spends more steps at high noise, on motion and layout. 5 hosted and Lightning, 12 official.")


def solver_input() -> io.Input:
    return io.Combo.Input("solver", options=list(SOLVERS), default="unipc",
                          tooltip="unipc and dpm++: the official solvers with their own schedules. euler: for Lightning LoRAs.")


def acceleration_input() -> io.Input:
    return io.Combo.Input("acceleration", options=list(ACCELERATIONS), default="regular",
                          tooltip="none computes every step. regular forecasts steps that change little and saves about half of the time; the video "
                                  "stays all but the same. high saves more, and fine detail may change. Below 10 steps all three are the same.")


def boundary_input() -> io.Input:
    return advanced(io.Float.Input("boundary", default=BOUNDARY, min=0.0, max=1.0, step=0.005,
                                   tooltip="Noise level at which the low-noise expert takes over. Wan 2.2 T2V was trained for 0.875."))


def denoise_input() -> io.Input:
    return advanced(io.Float.Input("denoise", default=1.0, min=MIN_DENOISE, max=1.0, step=0.01,
                                   tooltip="Below 1 starts from the latent of another video instead of noise, and changes it less."))


def opening_inputs() -> list[io.Input]:
    return [
        advanced(io.Int.Input("opening_steps", default=0, min=0, max=MAX_STEPS, optional=True,
                              tooltip="The first steps of the high-noise expert that have opening_guidance. With a distilled LoRA whose first_step "
                                      "comes after them, they settle the motion without it.")),
        advanced(io.Float.Input("opening_guidance", default=OPENING_GUIDANCE, min=0.0, max=MAX_GUIDANCE, step=0.1, optional=True,
                                tooltip="Guidance of the opening.")),
    ]


def check_opening_of_run(solver: str, steps: int, shift: float, denoise: float, boundary: float, opening_steps: int, opening_guidance: float) -> None:
    """ValueError for a setting out of range, and for an opening that is no part of the run."""
    check_opening(Schedule(solver, steps, shift, denoise).timesteps(), boundary, Guidance(1.0, 1.0, opening_steps, opening_guidance))


class Wan22Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Sampler",
            display_name="Wan 2.2 Sampler",
            category=CATEGORY,
            **found_by("KSampler", "text to video", "WanVideo sampler", "two experts", "UniPC"),
            description="Samples the video in one run over both experts: each step goes to the expert trained for its noise level, "
                        "and the solver's history crosses the switch.",
            inputs=[
                *experts_and_prompts(),
                io.Latent.Input("latent_image", tooltip="From Wan 2.2 Empty Latent, or from core's nodes for empty latents."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="The same seed and settings give the same video."),
                steps_input(), *guidance_scales(), shift_input(), solver_input(), acceleration_input(), boundary_input(), denoise_input(),
                *opening_inputs(),
            ],
            outputs=[io.Latent.Output("samples", display_name="samples"), io.String.Output("schedule", display_name="schedule")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None, acceleration: str | None = None, steps: int | None = None, shift: float | None = None,
                        denoise: float | None = None, boundary: float | None = None, opening_steps: int | None = 0,
                        opening_guidance: float | None = OPENING_GUIDANCE) -> bool | str:
        return first_refusal(verdict(check_methods, solver, acceleration),
                             verdict(check_opening_of_run, solver, steps, shift, denoise, boundary, opening_steps, opening_guidance))

    @classmethod
    def execute(cls, high_noise: io.Model.Type, low_noise: io.Model.Type, positive: io.Conditioning.Type, latent_image: io.Latent.Type,
                seed: int, steps: int, guidance_scale: float, guidance_scale_2: float, shift: float, solver: str, acceleration: str,
                boundary: float, denoise: float, negative: io.Conditioning.Type | None = None, opening_steps: int = 0,
                opening_guidance: float = OPENING_GUIDANCE) -> io.NodeOutput:
        schedule = Schedule(solver, steps, shift, denoise)
        guidance = Guidance(guidance_scale, guidance_scale_2, opening_steps, opening_guidance)
        guider = run.guider(high_noise, low_noise, positive, negative, guidance, shift, acceleration, boundary)
        samples, plan = run.sample(guider, latent_image, seed, schedule)
        text = plan.describe()
        return io.NodeOutput(latents.drawn_for(samples, positive), text, ui=messages.show(cls.hidden.unique_id, text))


class Wan22Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Guider",
            display_name="Wan 2.2 Guider",
            category=CATEGORY,
            **found_by("CFG guider", "two experts"),
            description="Both experts as one GUIDER for SamplerCustomAdvanced: whatever sampler and sigmas run, each step goes to its expert.",
            inputs=[*experts_and_prompts(), *guidance_scales(), shift_input(), acceleration_input(), boundary_input(), *opening_inputs()],
            outputs=[io.Guider.Output("guider", display_name="GUIDER")],
        )

    @classmethod
    def validate_inputs(cls, acceleration: str | None = None) -> bool | str:
        return verdict(check_choice, "acceleration", acceleration, ACCELERATIONS)

    @classmethod
    def execute(cls, high_noise: io.Model.Type, low_noise: io.Model.Type, positive: io.Conditioning.Type, guidance_scale: float,
                guidance_scale_2: float, shift: float, acceleration: str, boundary: float, negative: io.Conditioning.Type | None = None,
                opening_steps: int = 0, opening_guidance: float = OPENING_GUIDANCE) -> io.NodeOutput:
        guidance = Guidance(guidance_scale, guidance_scale_2, opening_steps, opening_guidance)
        return io.NodeOutput(run.guider(high_noise, low_noise, positive, negative, guidance, shift, acceleration, boundary))


class Wan22Sigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Sigmas",
            display_name="Wan 2.2 Sigmas",
            category=CATEGORY,
            **found_by("scheduler", "shift", "BasicScheduler"),
            description="The noise levels of a Wan 2.2 run as SIGMAS: each solver's own schedule, with the shift in it.",
            inputs=[steps_input(), shift_input(), solver_input(), denoise_input()],
            outputs=[io.Sigmas.Output("sigmas", display_name="SIGMAS")],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return verdict(solver_named, solver)

    @classmethod
    def execute(cls, steps: int, shift: float, solver: str, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(Schedule(solver, steps, shift, denoise).sigmas())


class Wan22Solver(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Solver",
            display_name="Wan 2.2 Solver",
            category=CATEGORY,
            **found_by("KSamplerSelect", "UniPC", "DPM++"),
            description="One of Wan 2.2's solvers as a SAMPLER: flow UniPC and DPM++ exactly as the official code runs them, or Euler.",
            inputs=[solver_input()],
            outputs=[io.Sampler.Output("sampler", display_name="SAMPLER")],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return verdict(solver_named, solver)

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(run.solver(solver))
