"""LoRAs that an expert has in some steps only: they travel with the MODEL, and a run patches them on when their steps begin."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from comfy.patcher_extension import CallbacksMP

from ...engine.spans import LoraSpan
from ..messages import warn_now
from .memory import Model
from .patches import Patches, patched

SPANS = "wan22_lora_spans"


@dataclass(frozen=True, eq=False)
class TimedLora:
    """One file's patches for one expert, and when they are on."""

    when: LoraSpan
    scale: float
    patches: Patches
    merged: bool = False  # also into quantised weights
    identity: uuid.UUID = field(default_factory=uuid.uuid4)


def with_timed_loras(model: Model, loras: Sequence[TimedLora]) -> Model:
    """The model, a clone of the caller's own, with LoRAs that only this pack's samplers put on; any other says that it leaves them out."""
    if loras:
        model.set_attachments(SPANS, (*timed_loras(model), *loras))
        model.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, SPANS)
        model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, SPANS, warn_of_what_is_left_out)
    return model


def timed_loras(model: Model) -> tuple[TimedLora, ...]:
    held: tuple[TimedLora, ...] = model.attachments.get(SPANS, ())
    return held


def lora_spans(model: Model) -> tuple[LoraSpan, ...]:
    return tuple(lora.when for lora in timed_loras(model))


def warn_of_what_is_left_out(model: Model) -> None:
    left_out = ", ".join(f"{lora.when.name} ({lora.when.span.describe()})" for lora in timed_loras(model))
    warn_now(f"this sampler knows no LoRAs by step and runs without {left_out}. "
             "Use Wan 2.2 Sampler, or Wan 2.2 Guider with SamplerCustomAdvanced.")


def with_loras_on(model: Model, places: Sequence[int]) -> Model:
    """A clone with the timed LoRAs of these places patched on; the same weights have the same name, so that a run finds them on the GPU again."""
    clone = model.clone()
    clone.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, SPANS)
    loras = [timed_loras(model)[place] for place in places]
    for merged in {lora.merged for lora in loras}:
        clone = patched(clone, [(lora.scale, lora.patches) for lora in loras if lora.merged is merged], merged)
    if clone.patches_uuid != model.patches_uuid:
        clone.patches_uuid = uuid.uuid5(model.patches_uuid, " ".join(str(lora.identity) for lora in loras))
    return clone
