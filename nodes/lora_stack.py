"""Stacks of LoRAs as files: one that was saved, and saving the one of a graph."""

from comfy_api.latest import io

from .engine.lora.routing import MAX_SCALE, LoraChoice
from .engine.lora.stacks.names import file_named
from .host import messages
from .host.models import lora_stacks
from .sockets import LoraStack
from .widgets import CATEGORY, found_by, verdict


class Wan22LoRAStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22LoRAStack",
            display_name="Wan 2.2 LoRA Stack",
            category=CATEGORY,
            **found_by("load LoRA stack", "LoRA preset", "Power Lora Loader", "WanVideo LoRA select multi"),
            description="A saved stack of LoRAs: files, scales, experts and steps in one. A file that is missing is named with its link.",
            inputs=[
                io.Combo.Input("stack_file", options=lora_stacks.stack_names(),
                               tooltip="File in models/loras/stacks, written by Wan 2.2 Save LoRA Stack."),
                io.Float.Input("scale", default=1.0, min=-MAX_SCALE, max=MAX_SCALE, step=0.05,
                               tooltip="Multiplies the scale of every LoRA in the stack. 0 changes nothing."),
                LoraStack.Input("stack", optional=True, tooltip="LoRAs to put on before these."),
            ],
            outputs=[LoraStack.Output("loras", display_name="loras")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, stack_file: str | None = None, scale: float | None = None) -> bool | str:
        return verdict(lora_stacks.check_stack, stack_file, scale)

    @classmethod
    def fingerprint_inputs(cls, stack_file: str | None = None, **_: object) -> str:
        return lora_stacks.fingerprint(stack_file or "")

    @classmethod
    def execute(cls, stack_file: str, scale: float, stack: tuple[LoraChoice, ...] = ()) -> io.NodeOutput:
        loaded = lora_stacks.load_stack(stack_file, scale)
        shown = messages.report(cls.hidden.unique_id, loaded.lines or ["no LoRAs"], loaded.warnings)
        return io.NodeOutput((*(stack or ()), *loaded.choices), ui=shown)


class Wan22SaveLoRAStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22SaveLoRAStack",
            display_name="Wan 2.2 Save LoRA Stack",
            category=CATEGORY,
            **found_by("save LoRA preset", "export LoRA stack"),
            description="Saves a stack of LoRAs as a small file, with scales, experts, steps, links and trigger words, for Wan 2.2 LoRA Stack.",
            inputs=[
                LoraStack.Input("loras", tooltip="The stack, from Wan 2.2 LoRA."),
                io.String.Input("name", default="my_stack", tooltip="Name of the file in models/loras/stacks; a folder may stand before it."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace another stack of that name. Off: that is an error."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return verdict(file_named, name)

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: object) -> str:
        """A stack that was deleted or changed by hand is saved anew; nothing runs after this node that would run again too."""
        return lora_stacks.state_of_saved(name or "")

    @classmethod
    def execute(cls, loras: tuple[LoraChoice, ...], name: str, overwrite: bool) -> io.NodeOutput:
        text = lora_stacks.save_stack(loras, name, overwrite, (cls.hidden.extra_pnginfo or {}).get("workflow"))
        return io.NodeOutput(ui=messages.report(cls.hidden.unique_id, [text], []))
