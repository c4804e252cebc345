"""Which expert a LoRA goes to, and why."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..choices import check_choice, check_range
from ..pairs import EXPERTS, Name, expert_in_name, other_expert, parse_name, with_slashes
from ..spans import Span

TARGETS = ("auto", "high", "low", "both")
MAX_SCALE = 4.0


@dataclass(frozen=True)
class LoraChoice:
    """One LoRA of a stack: file name as ComfyUI lists it, scale, the expert asked for, and the steps of the run that have it."""

    name: str
    scale: float = 1.0
    target: str = "auto"
    span: Span = Span()

    def __post_init__(self) -> None:
        check_choice("transformer", self.target, TARGETS)
        check_range("scale", self.scale, -MAX_SCALE, MAX_SCALE)


@dataclass(frozen=True)
class Route:
    """A file on its way to an expert, and for the report why it goes there."""

    name: str
    scale: float
    expert: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class Half:
    """A pair of which one file is missing: `expert` goes without, and `lacks` is the file that was looked for."""

    expert: str
    lacks: str

    def describe(self) -> str:
        return f"the {self.expert}-noise expert goes without {self.lacks}"


@dataclass(frozen=True)
class Routing:
    """Where one entry of the stack goes, what to warn of, and the half of a pair that is missing."""

    routes: list[Route]
    warning: str | None = None
    half: Half | None = None


@dataclass(frozen=True)
class Reading:
    """What a file's name says once the other files are known: its expert, its only partner, or several that could be."""

    expert: str | None
    partner: str | None
    candidates: tuple[str, ...]
    why: str


def read_name(path: str, files: Sequence[str]) -> Reading:
    """A partner decides names that are in doubt, such as style_h or high_elf; without one they go to both."""
    name = parse_name(path)
    partners = name.partners([parse_name(file) for file in files])
    experts, paths = {expert for expert, _ in partners}, {partner for _, partner in partners}
    candidates = tuple(file for file in files if with_slashes(file) in paths)
    certain = name.expert()
    expert = certain or (experts.pop() if len(experts) == 1 else None)
    partner = candidates[0] if expert and len(candidates) == 1 else None
    return Reading(expert, partner, candidates, _why(name, certain, expert))


def _why(name: Name, certain: str | None, expert: str | None) -> str:
    if certain:
        return f"its name says {certain}"
    if expert:
        return f"its name may say {expert}, and there is a partner"
    words = ", ".join(f"'{mention.word}'" for mention in name.mentions)
    return f"its name is in doubt ({words}) and has no partner" if words else "its name says neither high nor low"


def routes(choice: LoraChoice, named_experts: Collection[str], files: Sequence[str], chosen: Collection[str]) -> Routing:
    """Where a file and, for "auto", its partner go; `named_experts` are those that the file's own keys speak of.

    A partner that stands in the stack by itself (`chosen`) is left to its own entry.
    """
    if choice.target != "auto":
        return _as_asked(choice, chosen)
    reading = read_name(choice.name, files)
    if set(named_experts) == set(EXPERTS):
        return Routing(_to_both(choice, "it holds both experts"))
    if len(named_experts) == 1:
        (expert,) = named_experts
        partner = reading.partner if reading.expert == expert else None
        return _half_or_pair(choice, expert, Reading(expert, partner, (), f"its keys say {expert}"), chosen)
    if reading.expert is None:
        return Routing(_to_both(choice, reading.why), _doubt_warning(choice))
    return _half_or_pair(choice, reading.expert, reading, chosen)


def _as_asked(choice: LoraChoice, chosen: Collection[str]) -> Routing:
    """Where the user sends it; that a named half of a pair stays alone is said in the report, for it may be meant."""
    if choice.target == "both":
        return Routing([Route(choice.name, choice.scale, expert) for expert in EXPERTS])
    said = expert_in_name(choice.name)
    warning = None
    if said not in (None, choice.target):
        warning = f"{choice.name} goes to the {choice.target}-noise expert as asked, but its name says {said}"
    alone = said == choice.target and read_name(choice.name, [*chosen]).partner is None
    why = f"as asked; the {other_expert(choice.target)}-noise expert goes without" if alone else ""
    return Routing([Route(choice.name, choice.scale, choice.target, why)], warning)


def _to_both(choice: LoraChoice, why: str) -> list[Route]:
    return [Route(choice.name, choice.scale, expert, f"auto: {why}") for expert in EXPERTS]


def _doubt_warning(choice: LoraChoice) -> str | None:
    """Half of a pair that counts on both experts spoils the video; a single letter, or a word for a thing, is mostly no half."""
    words = [mention.word for mention in parse_name(choice.name).mentions if mention.word.lower() in EXPERTS]
    if not words or not choice.scale:
        return None
    return (f"{choice.name} goes to both experts: '{words[0]}' in its name may be English, and no file differs in it alone. "
            "Set transformer to high or low if it is for one of them.")


def _half_or_pair(choice: LoraChoice, expert: str, reading: Reading, chosen: Collection[str]) -> Routing:
    """The file to its expert, and its partner to the other one; a warning where there is none."""
    name, other = parse_name(choice.name), other_expert(expert)
    if reading.partner is None:
        half = Half(other, name.partner_to_look_for(expert))
        alone = Route(choice.name, choice.scale, expert, f"auto: {reading.why}; the {other}-noise expert goes without")
        return Routing([alone], _half_warning(choice, half, reading.candidates), half) if choice.scale else Routing([alone])
    routed = [Route(choice.name, choice.scale, expert, f"auto: {reading.why}")]
    if with_slashes(reading.partner) not in map(with_slashes, chosen):
        routed.append(Route(reading.partner, choice.scale, other, f"auto: the partner of {choice.name}"))
    return Routing(routed)


def _half_warning(choice: LoraChoice, half: Half, candidates: Sequence[str]) -> str:
    alone = f"{choice.name} goes to the {other_expert(half.expert)}-noise expert only, and the {half.expert}-noise expert goes without"
    if candidates:
        return f"{alone}: several files could be its partner ({', '.join(candidates)}). Add the right one as another Wan 2.2 LoRA."
    looked_for = f" no '{half.lacks}' is in models/loras." if half.lacks != parse_name(choice.name).path else " its name leads to no partner."
    return f"{alone}:{looked_for} Get the other file of the pair, or set transformer to both."
