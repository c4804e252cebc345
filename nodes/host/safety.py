"""Safety checks through ComfyUI: classifiers in models/safety, the pack's own phrase list, and a VIDEO that is looked at while it streams."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import Input

from ..engine.choices import check_range
from ..engine.model_files import missing_file
from ..engine.packages import opencv
from ..engine.safety.labels import Verdict, unsafe_labels, verdict
from ..engine.safety.phrases import phrase_list
from ..engine.safety.stream import Check, Picture, Report, UnsafeContent, checked
from .messages import counted
from .models.memory import on_device
from .models.pretrained import LOCAL, PREPARATION, Managed, best_dtype, folder_of, image_processor, model_folders, opened
from .video.lazy import following, stream_of

FOLDER = "safety"
PHRASES = "phrase list"
NOTHING_YET = "(none in models/safety)"
PICTURES, TEXTS = "ForImageClassification", "ForSequenceClassification"
MOST_TOKENS, OVERLAP = 512, 16  # of a window of a long text, and what two windows share
ACTIVATIONS = 300e6  # bytes: one picture, or one window of text, in a network of ViT-L's size
MULTI_LABEL = "multi_label_classification"


def picture_classifier_names() -> list[str]:
    return _names(PICTURES) or [NOTHING_YET]


def text_classifier_names() -> list[str]:
    return [PHRASES, *_names(TEXTS)]


def _names(kind: str) -> list[str]:
    return [name for name, folder in model_folders(FOLDER).items() if kind in _configuration(folder)]


def _configuration(folder: Path) -> str:
    try:
        return (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):  # of one folder, which must not cost the others
        return ""


def check_text_settings(classifier: str, threshold: float, override: str) -> None:
    """ValueError unless the classifier is there and whole, and its labels are understood; opens no weights."""
    check_range("threshold", threshold, 0.0, 1.0)
    if classifier != PHRASES:
        unsafe_labels(_labels(folder_of(FOLDER, classifier, needs_tokenizer=True)), override)


def check_picture_settings(classifier: str, threshold: float, override: str) -> None:
    """The same for pictures, and OpenCV is there."""
    check_range("threshold", threshold, 0.0, 1.0)
    opencv()
    if classifier == NOTHING_YET:
        raise ValueError(missing_file(FOLDER, "nsfw_image_detection"))
    folder = folder_of(FOLDER, classifier, needs_tokenizer=False)
    if not (folder / PREPARATION).exists():
        raise ValueError(f"models/{FOLDER}/{classifier} has no {PREPARATION}. Download it from where the other files came from.")
    unsafe_labels(_labels(folder), override)


def _labels(folder: Path) -> list[str]:
    try:
        return list(json.loads(_configuration(folder))["id2label"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"models/{FOLDER}/{folder.name}/config.json has no id2label: it is no classifier. Choose another folder.") from error


def check_prompt(text: str, classifier: str, threshold: float, override: str) -> Verdict:
    """The verdict on a prompt; UnsafeContent from `threshold` on. Long texts are read in windows, and the worst one counts."""
    check_text_settings(classifier, threshold, override)
    if not text.strip():
        return Verdict({}, 0.0)
    verdict = phrase_list().check(text) if classifier == PHRASES else _worst_window(classifier, text, override)
    if verdict.unsafe >= threshold:
        raise UnsafeContent(f"the prompt is {verdict}, the threshold is {threshold:g}. Nothing was drawn. "
                            "Change the prompt, or raise the threshold if the check is wrong.")
    return verdict


def _worst_window(classifier: str, text: str, override: str) -> Verdict:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    folder = folder_of(FOLDER, classifier, needs_tokenizer=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    network = Classifier(AutoModelForSequenceClassification, folder, override)
    longest = min(MOST_TOKENS, tokenizer.model_max_length, getattr(network.configuration, "max_position_embeddings", MOST_TOKENS))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    windows = tokenizer(text, truncation=True, max_length=longest, stride=min(OVERLAP, longest // 4), return_overflowing_tokens=tokenizer.is_fast,
                        padding=True, return_tensors="pt")
    pairs = zip(windows["input_ids"].split(1), windows["attention_mask"].split(1), strict=True)
    try:
        return max((network.verdict(input_ids=ids, attention_mask=mask) for ids, mask in pairs), key=lambda verdict: verdict.unsafe)
    finally:
        network.managed.unload()


def checked_video(video: Input.Video, classifier: str, threshold: float, action: str, every: int, override: str,
                  report_to: Callable[[Report], None]) -> Input.Video:
    """VIDEO that is looked at while somebody pulls it; see engine.safety.stream."""
    check_picture_settings(classifier, threshold, override)
    source, folder = stream_of(video), folder_of(FOLDER, classifier, needs_tokenizer=False)
    check = Check(threshold, action, every, report_to)
    return following(video, replace(source, pull=lambda: checked(source.pull(), PictureClassifier(folder, override), check, source.seams)))


class PictureClassifier:
    """Looks at a frame in 8 bit with one of transformers' picture classifiers."""

    def __init__(self, folder: Path, override: str) -> None:
        from transformers import AutoModelForImageClassification
        self.prepare = image_processor(folder)
        self.network = Classifier(AutoModelForImageClassification, folder, override)

    def __call__(self, picture: Picture) -> Verdict:
        return self.network.verdict(pixel_values=self.prepare(images=picture, return_tensors="pt")["pixel_values"])


class Classifier:
    """A classifier on its device, brought back before each look: what draws the frames may have taken its place."""

    def __init__(self, auto_class: Any, folder: Path, override: str) -> None:
        device = comfy.model_management.get_torch_device()
        (network,) = (opened(auto_class, each, best_dtype(device)) for each in counted((folder,)))
        self.managed, self.configuration = Managed(network, device), network.config
        self.labels = [str(label) for _, label in sorted(self.configuration.id2label.items())]
        self.unsafe = unsafe_labels(self.labels, override)
        self.exclusive = self.configuration.problem_type != MULTI_LABEL and len(self.labels) > 1  # as transformers' pipelines decide

    @torch.no_grad()
    def verdict(self, **inputs: torch.Tensor) -> Verdict:
        """Of one picture or text, a batch of 1."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.managed.load(ACTIVATIONS)
        device, dtype = self.managed.device, self.managed.network.dtype
        placed = {name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device) for name, tensor in inputs.items()}
        with on_device(device):
            logits = self.managed.network(**placed).logits[0].float().cpu()
        scores = logits.softmax(-1) if self.exclusive else logits.sigmoid()
        return verdict(dict(zip(self.labels, scores.tolist(), strict=True)), self.unsafe, self.exclusive)
