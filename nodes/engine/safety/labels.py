"""What the labels of published safety classifiers mean, and the verdict that follows from their scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNSAFE = frozenset((
    "nsfw", "unsafe", "not safe", "porn", "pornography", "pornographic", "hentai", "anime or hentai", "sexy", "sexual", "sexual content",
    "sexual_explicit", "explicit", "enticing or sensual", "nudity", "nude", "naked", "gore", "violence", "violent", "toxic", "toxicity",
    "severe_toxic", "severe_toxicity", "obscene", "threat", "hate", "hateful", "harassment", "self-harm", "offensive", "profanity"))
"""In lower case: the labels of Falconsai/nsfw_image_detection, AdamCodd/vit-base-nsfw-detector, LukeJacob2023/nsfw-image-detector,
unitary/toxic-bert, eliasalbouzidi/distilbert-nsfw-text-classifier, michellejieli/NSFW_text_classifier and others like them."""
ABBREVIATED = {"s": "sexual", "h": "hate", "v": "violence", "hr": "harassment", "sh": "self-harm", "s3": "sexual", "h2": "hate", "v2": "violence"}
"""KoalaAI/Text-Moderation's."""


@dataclass(frozen=True)
class Verdict:
    """Scores per label, 0..1, and how unsafe all of it is: the sum of the unsafe labels where one label excludes the others, else their maximum."""

    scores: Mapping[str, float]
    unsafe: float

    def __str__(self) -> str:
        return f"unsafe {self.unsafe:.3f} ({self._listed()})"

    def score(self) -> str:
        """For a sentence about something that passed; the labels say more only where there is a score at all."""
        rounded = f"{round(self.unsafe, 3):g}"
        return f"{rounded} of 1" + (f" ({self._listed()})" if rounded != "0" else "")

    def _listed(self) -> str:
        listed = sorted(self.scores.items(), key=lambda entry: -entry[1])
        return ", ".join(f"{label} {score:.3f}" for label, score in listed[:8])


def unsafe_labels(labels: Iterable[str], override: str = "") -> frozenset[str]:
    """Which of a classifier's labels mean unsafe: those named in `override`, separated by commas, else those in the table.

    ValueError where none does, or where `override` names a label that the classifier does not have.
    """
    have = {label.casefold(): label for label in labels}
    listed = ", ".join(have.values())
    asked = [name.strip().casefold() for name in override.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in have]:
        raise ValueError(f"unsafe_labels names '{unknown[0]}', which this classifier does not have. Its labels: {listed}.")
    names = asked or [label for label in have if label in UNSAFE or ABBREVIATED.get(label) in UNSAFE]
    if not names:
        raise ValueError(f"none of this classifier's labels is known to mean unsafe: {listed}. Name those that do in unsafe_labels.")
    return frozenset(have[name] for name in names)


def verdict(scores: Mapping[str, float], unsafe: Iterable[str], exclusive: bool) -> Verdict:
    """From one text's or picture's scores; `exclusive` where they add up to 1."""
    chosen = [scores[label] for label in unsafe]
    return Verdict(scores, min(1.0, sum(chosen)) if exclusive else max(chosen))
