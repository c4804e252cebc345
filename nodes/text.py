"""Text: the UMT5 loader and the prompt encoder."""

from comfy_api.latest import io

from .host import messages, text
from .host.models import files
from .widgets import CATEGORY, found_by, verdict


class Wan22TextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22TextEncoderLoader",
            display_name="Wan 2.2 Text Encoder Loader",
            category=CATEGORY,
            **found_by("UMT5", "T5", "load CLIP"),
            description="Loads a UMT5 text encoder of any size (XXL in fp16 or fp8_scaled); its tokenizer comes from the same file.",
            inputs=[
                io.Combo.Input("text_encoder", options=files.model_names("text_encoders"),
                               tooltip="File in models/text_encoders, for example umt5_xxl_fp8_e4m3fn_scaled.safetensors."),
                io.Combo.Input("device", options=list(files.DEVICES), default="default",
                               tooltip="default: the GPU while it encodes. cpu: slower, but takes no GPU memory."),
            ],
            outputs=[io.Clip.Output("clip", display_name="CLIP")],
        )

    @classmethod
    def validate_inputs(cls, text_encoder: str | None = None, device: str | None = None) -> bool | str:
        return verdict(files.check_text_encoder_file, text_encoder, device)

    @classmethod
    def execute(cls, text_encoder: str, device: str) -> io.NodeOutput:
        return io.NodeOutput(*(files.load_text_encoder(name, device) for name in messages.counted((text_encoder,))))


class Wan22TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22TextEncode",
            display_name="Wan 2.2 Text Encode",
            category=CATEGORY,
            **found_by("prompt", "CLIP text encode", "WanVideo TextEncode"),
            description="Encodes the prompts exactly as Wan 2.2 was trained: cleaned text, 512 tokens, parentheses are text and not weights.",
            inputs=[
                io.Clip.Input("clip", tooltip="From Wan 2.2 Text Encoder Loader, or core CLIPLoader with type wan."),
                io.String.Input("prompt", multiline=True, default="",
                                tooltip="What the video shows: subject, action, scene, light, camera. English or Chinese."),
                io.String.Input("negative_prompt", multiline=True, default="",
                                tooltip="What the video should not show. Not used where guidance is 1."),
            ],
            outputs=[io.Conditioning.Output("positive", display_name="positive"),
                     io.Conditioning.Output("negative", display_name="negative")],
        )

    @classmethod
    def execute(cls, clip: io.Clip.Type, prompt: str, negative_prompt: str) -> io.NodeOutput:
        return io.NodeOutput(*(text.encode(clip, words) for words in messages.counted((prompt, negative_prompt))))
