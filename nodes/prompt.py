"""Prompt expansion: a short prompt becomes a rich one."""

from comfy_api.latest import io

from .engine.prompt.expansion import MAX_SEED
from .host import language, messages
from .widgets import CATEGORY, advanced, found_by, verdict


class Wan22ExpandPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = language.language_model_names()
        return io.Schema(
            node_id="Wan22ExpandPrompt",
            display_name="Wan 2.2 Expand Prompt",
            category=CATEGORY,
            **found_by("prompt enhancer", "rewrite prompt", "LLM", "Ollama"),
            description="A language model rewrites a short prompt into the 60 to 200 words that Wan draws best: subject, action, scene, light, "
                        "camera. Off by default: then the prompt passes as it is.",
            inputs=[
                io.String.Input("prompt", multiline=True, default="",
                                tooltip="A few words in English or Chinese. Names, numbers and quoted text are kept."),
                io.Boolean.Input("enabled", default=False, tooltip="Off: the prompt passes as it is."),
                io.Combo.Input("language_model", options=names, default=names[0],
                               tooltip="A folder in models/LLM, for example Qwen2.5-3B-Instruct; endpoint: a server such as Ollama, set in "
                                       "ComfyUI's settings or the environment; clip: a connected text encoder that can write."),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=False,
                             tooltip="Another seed, another text. The same prompt and seed do not run again."),
                io.Clip.Input("clip", optional=True, tooltip="Only for language_model clip: a Qwen3, Gemma or Ministral text encoder."),
                advanced(io.Combo.Input("when_it_fails", options=list(language.FAILURES), default=language.STOP, optional=True,
                                        tooltip="When the language model gives no prompt: stop with an error, or go on with the short prompt.")),
            ],
            outputs=[io.String.Output("expanded", display_name="prompt")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, enabled: bool | None = None, language_model: str | None = None) -> bool | str:
        return verdict(language.check_language_model, language_model) if enabled else True

    @classmethod
    def fingerprint_inputs(cls, enabled: bool | None = None, language_model: str | None = None, **_: object) -> str:
        return language.state_of(language_model) if enabled and language_model else ""

    @classmethod  # async: ComfyUI runs such nodes before others, and so before it loads the experts
    async def execute(cls, prompt: str, enabled: bool, language_model: str, seed: int, clip: io.Clip.Type | None = None,
                      when_it_fails: str = language.STOP) -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(prompt)
        expansion = language.expanded(prompt, seed, language.language_model(language_model, clip), when_it_fails)
        return io.NodeOutput(expansion.prompt, ui=messages.report(cls.hidden.unique_id, [expansion.prompt], list(expansion.notes)))
