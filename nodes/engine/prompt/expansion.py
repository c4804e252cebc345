"""The one seam of prompt expansion: what is asked of a language model, whoever runs it, and what becomes of its answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import answers

MAX_PROMPT_WORDS = 150  # a longer prompt is rich already
MAX_PROMPT_CHARACTERS = 6000  # whatever its words are
MIN_WORDS, USUAL_WORDS = 12, 40  # of an expansion: fewer are no answer; fewer are short
MAX_NEW_TOKENS = 1024  # some models think before they answer
MAX_SEED = 2**64 - 1
TEMPERATURE = 0.7


class ExpansionFailed(RuntimeError):
    """The language model gave no prompt; the text says why and what helps."""


@dataclass(frozen=True)
class Request:
    """What a language model is asked, and how its choices are drawn."""

    system: str
    user: str
    seed: int
    temperature: float = TEMPERATURE
    max_new_tokens: int = MAX_NEW_TOKENS

    @property
    def messages(self) -> list[dict[str, str]]:
        """As chat templates and the OpenAI protocol take them."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


LanguageModel = Callable[[Request], str]
"""Answers a request, or raises ExpansionFailed."""


@dataclass(frozen=True)
class Expansion:
    """The prompt to use, and what the user should know about it."""

    prompt: str
    notes: tuple[str, ...] = ()


def system_prompt() -> str:
    return (Path(__file__).parent / "system_prompt.md").read_text(encoding="utf-8")


def request_for(prompt: str, seed: int) -> Request:
    """The prompt between tags that it cannot close, with its language named, since small models overlook rules but not the last line."""
    language = "Chinese" if answers.is_chinese(prompt) else "the language of the prompt"
    inside = re.sub(r"<(/?)prompt>", r"(\1prompt)", prompt, flags=re.IGNORECASE)
    return Request(system_prompt(), f"<prompt>{inside}</prompt>\n\nRewrite it in {language}. Answer with the paragraph alone.", seed)


def expand(prompt: str, seed: int, model: LanguageModel) -> Expansion:
    """A rich prompt of up to 200 words for a short one.

    An empty prompt, and one of more than MAX_PROMPT_WORDS words, come back as they are, and no model is asked. ExpansionFailed when the answer
    holds no prompt, a refusal, or hardly more than the prompt had.
    """
    if not prompt.strip():
        return Expansion(prompt, ("The prompt is empty: there is nothing to expand.",))
    if len(prompt) > MAX_PROMPT_CHARACTERS or answers.words(prompt) > MAX_PROMPT_WORDS:
        return Expansion(prompt, (f"The prompt is used as it is; up to {MAX_PROMPT_WORDS} words, {MAX_PROMPT_CHARACTERS} characters, are expanded.",))
    expanded = answers.prompt_in(model(request_for(prompt, seed)))
    if not expanded:
        raise ExpansionFailed("the language model's answer holds no prompt, perhaps reasoning alone. Try another seed or a model that thinks less.")
    if answers.is_refusal(expanded) or answers.words(expanded) < max(MIN_WORDS, answers.words(prompt)):
        raise ExpansionFailed(f"the language model wrote no richer prompt but: {expanded[:200]!r}. Try another seed or model.")
    return Expansion(expanded, _notes(prompt, expanded))


def _notes(prompt: str, expanded: str) -> tuple[str, ...]:
    notes = [] if answers.words(expanded) >= USUAL_WORDS else ["The expansion is short. Try another seed or a larger model."]
    if gone := answers.lost(prompt, expanded):
        notes.append(f"The expansion lost {', '.join(gone)}. Try another seed.")
    if answers.is_chinese(prompt) != answers.is_chinese(expanded):
        notes.append("The expansion is in another language than the prompt. Try another seed or a larger model.")
    return tuple(notes)
