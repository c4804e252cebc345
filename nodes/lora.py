"""LoRAs: a stack of files, and the node that puts it on both experts."""

from comfy_api.latest import io

from .engine.choices import choose
from .engine.lora.routing import MAX_SCALE, TARGETS, LoraChoice
from .engine.spans import MAX_STEPS, Span
from .host import messages
from .host.models import files, on_the_fly
from .host.models import lora as loras_host
from .sockets import LoraStack
from .widgets import CATEGORY, advanced, found_by, verdict


def check_choice_of_lora(lora: str, scale: float, transformer: str, first_step: int, last_step: int) -> None:
    """ValueError unless the file is there and scale, target and steps are in their ranges."""
    loras_host.lora_path(lora)
    LoraChoice(lora, scale, transformer, Span(first_step, last_step))


class Wan22LoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22LoRA",
            display_name="Wan 2.2 LoRA",
            category=CATEGORY,
            **found_by("load LoRA", "WanVideo LoRA select"),
            description="One LoRA of a stack, for one expert or both. Chain several; Wan 2.2 Apply LoRAs puts them on the models.",
            inputs=[
                io.Combo.Input("lora", options=files.model_names("loras"), tooltip="File in models/loras; any trainer's format for Wan."),
                io.Float.Input("scale", default=1.0, min=-MAX_SCALE, max=MAX_SCALE, step=0.05, tooltip="Strength. 0 changes nothing."),
                io.Combo.Input("transformer", options=list(TARGETS), default="auto",
                               tooltip="auto: a file with both experts is split; a file named high or low goes there, and its partner file to the "
                                       "other; any other file goes to both."),
                LoraStack.Input("stack", optional=True, tooltip="LoRAs to put on before this one."),
                advanced(io.Int.Input("first_step", default=1, min=1, max=MAX_STEPS, optional=True,
                                      tooltip="Step of the run, both experts counted through, from which the LoRA is on. 3 leaves a distilled "
                                              "LoRA out of the first two: the usual cure for slow motion.")),
                advanced(io.Int.Input("last_step", default=0, min=0, max=MAX_STEPS, optional=True,
                                      tooltip="Last step that has the LoRA. 0: to the end of the run.")),
            ],
            outputs=[LoraStack.Output("loras", display_name="loras")],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None, scale: float | None = None, transformer: str | None = None, first_step: int | None = 1,
                        last_step: int | None = 0) -> bool | str:
        return verdict(check_choice_of_lora, lora, scale, transformer, first_step, last_step)

    @classmethod
    def execute(cls, lora: str, scale: float, transformer: str, stack: tuple[LoraChoice, ...] = (), first_step: int = 1,
                last_step: int = 0) -> io.NodeOutput:
        return io.NodeOutput((*(stack or ()), LoraChoice(lora, scale, transformer, Span(first_step, last_step))))


class Wan22ApplyLoRAs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22ApplyLoRAs",
            display_name="Wan 2.2 Apply LoRAs",
            category=CATEGORY,
            **found_by("LoRA stack", "set LoRAs", "load LoRA"),
            description="Puts a stack of LoRAs on both experts, each on the one it was made for, and reports what every file did.",
            inputs=[io.Model.Input("high_noise", tooltip="The high-noise expert."), io.Model.Input("low_noise", tooltip="The low-noise expert."),
                    LoraStack.Input("loras", optional=True, tooltip="From Wan 2.2 LoRA. Without any, both experts pass as they are."),
                    advanced(io.Combo.Input("quantised", options=list(on_the_fly.WAYS), default=on_the_fly.ON_THE_FLY, optional=True,
                                            tooltip="For experts in fp8, fp4 or int8. on the fly: LoRAs are added beside the weights, as exact as in "
                                                    "fp16. merged: into the weights, which are rounded anew; a little quicker."))],
            outputs=[io.Model.Output("high", display_name="high"), io.Model.Output("low", display_name="low"),
                     io.String.Output("report", display_name="report")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, high_noise: io.Model.Type, low_noise: io.Model.Type, loras: tuple[LoraChoice, ...] = (),
                quantised: str = on_the_fly.ON_THE_FLY) -> io.NodeOutput:
        merged = choose("quantised", quantised, {on_the_fly.ON_THE_FLY: False, on_the_fly.MERGED: True})
        high, low, lines, warnings = loras_host.apply(high_noise, low_noise, loras or (), merged)
        shown = messages.report(cls.hidden.unique_id, lines or ["no LoRAs"], warnings)
        return io.NodeOutput(high, low, "\n".join(lines), ui=shown)
