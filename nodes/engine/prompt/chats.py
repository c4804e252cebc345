"""Chat formats of the language models that serve as text encoders, where no tokenizer carries a template."""

import re

from .expansion import Request

_CHATML = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
FORMATS = {
    "Qwen25": _CHATML,
    "Qwen3": _CHATML + "<think>\n\n</think>\n\n",  # an empty thought: it answers at once
    "Gemma4": "<|turn>system\n{system}<turn|>\n<|turn>user\n{user}<turn|>\n<|turn>model\n",
    "Gemma": "<start_of_turn>user\n{system}\n\n{user}<end_of_turn>\n<start_of_turn>model\n",
    "Ministral": "[SYSTEM_PROMPT]{system}[/SYSTEM_PROMPT][INST]{user}[/INST]",
}
"""By how the network's class is called in comfy/text_encoders; the first that fits."""
_MARKS = re.compile(r"<\|[^|<>]{1,40}\|>|<\|turn>|<turn\|>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT)\]|</?think>")


def without(marks: re.Pattern[str], text: str) -> str:
    """The text without the marks, nor those that their removal would make."""
    while marks.search(text):
        text = marks.sub("", text)
    return text


def chat_text(network: str, request: Request) -> str:
    """The whole conversation up to where the model answers; KeyError for a class of network that is in no format's table."""
    for name, template in FORMATS.items():
        if network.startswith(name):
            return template.format(system=request.system, user=without(_MARKS, request.user))
    raise KeyError(network)
