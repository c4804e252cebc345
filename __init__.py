"""Wan 2.2 Video + LoRA: the menu of the pack."""

from comfy_api.latest import ComfyExtension, io

from .nodes import schedule
from .nodes.api.local import registration
from .nodes.contact_sheet import Wan22ContactSheet
from .nodes.decode import Wan22Decode
from .nodes.experts import Wan22ExpertLoader
from .nodes.interpolation import Wan22Interpolate, Wan22InterpolatorLoader
from .nodes.latent import Wan22EmptyLatent
from .nodes.lora import Wan22ApplyLoRAs, Wan22LoRA
from .nodes.lora_stack import Wan22LoRAStack, Wan22SaveLoRAStack
from .nodes.prompt import Wan22ExpandPrompt
from .nodes.safety import Wan22CheckPrompt, Wan22CheckVideo
from .nodes.sampling import Wan22Guider, Wan22Sampler, Wan22Sigmas, Wan22Solver
from .nodes.text import Wan22TextEncode, Wan22TextEncoderLoader
from .nodes.video import Wan22SaveVideo

WEB_DIRECTORY = "web"


class Wan22Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            Wan22ExpandPrompt,
            Wan22CheckPrompt,
            Wan22TextEncoderLoader,
            Wan22TextEncode,
            Wan22ExpertLoader,
            Wan22LoRA,
            Wan22LoRAStack,
            Wan22SaveLoRAStack,
            Wan22ApplyLoRAs,
            Wan22EmptyLatent,
            Wan22Sampler,
            Wan22Guider,
            Wan22Sigmas,
            Wan22Solver,
            Wan22Decode,
            Wan22CheckVideo,
            Wan22InterpolatorLoader,
            Wan22Interpolate,
            Wan22ContactSheet,
            Wan22SaveVideo,
        ]


async def comfy_entrypoint() -> Wan22Extension:
    schedule.register()
    registration.register()
    return Wan22Extension()
