"""Which expert a LoRA goes to."""

from collections.abc import Collection
from dataclasses import dataclass

from ..choices import check_choice, check_range
from ..pairs import expert_in_name, without_expert

TARGETS = ("auto", "high", "low", "both")
MAX_SCALE = 4.0
EXPERTS = ("high", "low")


@dataclass(frozen=True)
class LoraChoice:
    """One LoRA of a stack: file name as ComfyUI lists it, scale, and the expert asked for."""

    name: str
    scale: float = 1.0
    target: str = "auto"

    def __post_init__(self) -> None:
        check_choice("transformer", self.target, TARGETS)
        check_range("scale", self.scale, -MAX_SCALE, MAX_SCALE)


@dataclass(frozen=True)
class Route:
    """A file on its way to an expert. `part` names the half of a file that holds both experts."""

    name: str
    scale: float
    expert: str


def partner_name(name: str, files: Collection[str]) -> str | None:
    """The only file in the same folder that differs from `name` just in saying the other expert; None where there is none or several."""
    expert = expert_in_name(name)
    if expert is None:
        return None
    partners = [file for file in files if expert_in_name(file) == other_expert(expert) and without_expert(file) == without_expert(name)]
    return partners[0] if len(partners) == 1 else None


def other_expert(expert: str) -> str:
    return "low" if expert == "high" else "high"


def routes(choice: LoraChoice, holds_both_experts: bool, files: Collection[str], chosen: Collection[str]) -> tuple[list[Route], str | None]:
    """Where a file and, for "auto", its partner go, and a warning when an explicit target contradicts the file's name.

    A partner that stands in the stack by itself (`chosen`) is left to its own entry.
    """
    expert = expert_in_name(choice.name)
    if choice.target != "auto":
        warning = None
        if choice.target in EXPERTS and expert not in (None, choice.target):
            warning = f"{choice.name} goes to the {choice.target}-noise expert as asked, but its name says {expert}"
        return [Route(choice.name, choice.scale, expert) for expert in _experts(choice.target)], warning
    if holds_both_experts or expert is None:
        return [Route(choice.name, choice.scale, expert) for expert in EXPERTS], None
    routed = [Route(choice.name, choice.scale, expert)]
    partner = partner_name(choice.name, files)
    if partner is not None and partner not in chosen:
        routed.append(Route(partner, choice.scale, other_expert(expert)))
    return routed, None


def _experts(target: str) -> tuple[str, ...]:
    return EXPERTS if target == "both" else (target,)
