"""Experts: load the two halves of Wan 2.2 T2V A14B."""

from comfy_api.latest import io

from .engine.pairs import likely_pair
from .host import messages
from .host.models import files
from .widgets import CATEGORY, advanced, found_by, verdict


class Wan22ExpertLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = files.model_names("diffusion_models")
        high, low = likely_pair(names)
        return io.Schema(
            node_id="Wan22ExpertLoader",
            display_name="Wan 2.2 Expert Loader",
            category=CATEGORY,
            **found_by("load diffusion model", "UNETLoader", "WanVideo model loader", "high noise", "low noise"),
            description="Loads the high-noise and the low-noise expert of Wan 2.2 T2V A14B. Both stay in ComfyUI's memory management: "
                        "the one that is not sampling may leave the GPU.",
            inputs=[
                io.Combo.Input("high_noise_model", options=names, default=high,
                               tooltip="The expert for motion and layout: its file name says high_noise."),
                io.Combo.Input("low_noise_model", options=names, default=low,
                               tooltip="The expert for detail: its file name says low_noise."),
                io.Combo.Input("weight_dtype", options=list(files.WEIGHT_DTYPES), default="default",
                               tooltip="For files in fp16 or bf16: fp8 halves their memory; fp8_e4m3fn_fast also multiplies in fp8 (RTX 40 series "
                                       "and newer). default keeps the type of the file. Quantised files keep theirs in any case."),
                advanced(io.Combo.Input("low_device", options=files.placements(), default=files.DEFAULT, optional=True,
                                        tooltip="Another GPU for the low-noise expert, where ComfyUI knows several: both experts stay loaded, and "
                                                "only the latent moves between them.")),
            ],
            outputs=[io.Model.Output("high", display_name="high"), io.Model.Output("low", display_name="low")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, high_noise_model: str | None = None, low_noise_model: str | None = None,
                        weight_dtype: str | None = None, low_device: str | None = None) -> bool | str:
        """`low_device` stands here so that ComfyUI lets one of another machine pass."""
        return verdict(files.check_expert_files, high_noise_model, low_noise_model, weight_dtype)

    @classmethod
    def execute(cls, high_noise_model: str, low_noise_model: str, weight_dtype: str, low_device: str = files.DEFAULT) -> io.NodeOutput:
        files.check_expert_files(high_noise_model, low_noise_model, weight_dtype)
        warnings = files.expert_warnings(high_noise_model, low_noise_model, weight_dtype, low_device)
        shown = messages.report(cls.hidden.unique_id, [], warnings)
        high, low = (files.load_expert(name, weight_dtype) for name in messages.counted((high_noise_model, low_noise_model)))
        return io.NodeOutput(high, files.placed(low, low_device), ui=shown)
