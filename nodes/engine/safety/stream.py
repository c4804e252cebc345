"""A clip that is looked at while it streams: every n-th frame, and the first one of each scene; unsafe parts are blurred or end the clip."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ..choices import check_choice, check_range
from ..frames import to_levels
from ..packages import opencv
from .labels import Verdict

Picture = np.ndarray  # uint8 (H, W, 3)
Look = Callable[[Picture], Verdict]
STOP, BLUR = "stop", "blur"
ACTIONS = (STOP, BLUR)
EVERY = 8  # frames: half a second
THUMBNAIL = 16, 16  # pixels
NEW_SCENE = 0.12 * 255  # mean difference of thumbnails; too many scenes cost time, too few would miss one
BLUR_CELLS = 12  # along the longer side: no shape survives


class UnsafeContent(RuntimeError):
    """The check found something unsafe; the text says what, where and by which score."""


@dataclass(frozen=True)
class FrameVerdict:
    """A verdict and the frame it is about, counted from 0."""

    frame: int
    verdict: Verdict


@dataclass
class Report:
    """What has been looked at so far, the worst of it, and from which score on a frame is unsafe."""

    threshold: float
    looked_at: int = 0
    blurred: int = 0
    worst: FrameVerdict | None = None

    def add(self, frame: FrameVerdict) -> None:
        self.looked_at += 1
        if self.worst is None or frame.verdict.unsafe > self.worst.verdict.unsafe:
            self.worst = frame

    def __str__(self) -> str:
        if self.worst is None:
            return "No frame was looked at."
        unsafe = f"{self.blurred} frames blurred" if self.blurred else "unsafe"
        found = unsafe if self.worst.verdict.unsafe >= self.threshold else "nothing unsafe found"
        return (f"{self.looked_at} frames looked at, {found}: the most suspicious is frame {self.worst.frame} with {self.worst.verdict.score()}, "
                f"the threshold is {self.threshold:g}.")


@dataclass(frozen=True)
class Check:
    """From which score on a frame is unsafe, what happens then, how often to look, and who is told what was found."""

    threshold: float
    action: str = STOP
    every: int = EVERY
    report_to: Callable[[Report], None] = field(default=lambda report: None)

    def __post_init__(self) -> None:
        check_choice("when_unsafe", self.action, ACTIONS)
        check_range("threshold", self.threshold, 0.0, 1.0)
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be 1 or more frames.")


def checked(clip: Iterator[torch.Tensor], look_at: Look, check: Check, seams: tuple[int, ...] = ()) -> Iterator[torch.Tensor]:
    """The chunks (T, H, W, 3) of `clip` in 0..1, frame by frame; unsafe parts blurred, or UnsafeContent raised.

    `look_at` gives the verdict on one frame in 8 bit. ValueError where OpenCV is missing.

    Frames between two looks are unsafe when either look was; they are held until the second one, so at most `every` of them. The last frame of a
    scene is looked at as well as its first; at each of the `seams` of a batch another scene begins.
    """
    look = _Looks(look_at, check, seams)
    held: list[torch.Tensor] = []
    before: Picture | None = None
    for index, frame in enumerate(_frames(clip)):
        picture = _picture(frame)
        thumbnail = _thumbnail(picture)
        if before is None or index in seams or _is_new_scene(before, thumbnail):
            if held:
                yield from look.passed(held, _picture(held[-1]), index - 1)
            look.at(picture, index)
            held = []
        elif len(held) == check.every:
            yield from look.passed(held, picture, index)
            held = []
        held.append(frame)
        before = thumbnail
    if held:
        yield from look.passed(held, picture, index)


class _Looks:
    """The looks at one clip: what they found so far, and whether the last one was unsafe."""

    def __init__(self, look_at: Look, check: Check, seams: tuple[int, ...]) -> None:
        self.look_at, self.check, self.seams = look_at, check, seams
        self.report, self.unsafe, self.last = Report(check.threshold), False, -1

    def at(self, picture: Picture, index: int) -> None:
        """Look at a frame, unless it was the last one looked at."""
        if index == self.last:
            return
        self.last = index
        verdict = self.look_at(picture)
        self.report.add(FrameVerdict(index, verdict))
        self.check.report_to(self.report)
        self.unsafe = verdict.unsafe >= self.check.threshold
        if self.unsafe and self.check.action == STOP:
            raise UnsafeContent(f"frame {index} is {verdict}, the threshold is {self.check.threshold:g}. {self._unwritten(index)} "
                                "Change the prompt or the seed, or raise the threshold if the check is wrong.")

    def _unwritten(self, index: int) -> str:
        whole = sum(seam <= index for seam in self.seams)  # videos of a batch that passed before
        return f"Of video {whole + 1} of {len(self.seams) + 1} and of those after it nothing was written." if whole else "Nothing was written."

    def passed(self, held: list[torch.Tensor], picture: Picture, index: int) -> Iterator[torch.Tensor]:
        """The frames since the last look, once another frame was looked at."""
        was_unsafe = self.unsafe
        self.at(picture, index)
        if was_unsafe or self.unsafe:
            self.report.blurred += len(held)
            self.check.report_to(self.report)
            return (blurred(each) for each in held)
        return iter(held)


def blurred(frame: torch.Tensor) -> torch.Tensor:
    """A frame (1, H, W, 3) of which only colours are left: BLUR_CELLS cells along its longer side."""
    cv2 = opencv()
    height, width = frame.shape[1:3]
    columns, rows = (max(1, round(BLUR_CELLS * side / max(height, width))) for side in (width, height))
    cells = cv2.resize(frame[0].float().cpu().numpy(), (columns, rows), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)).to(frame)[None]


def _frames(clip: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for chunk in clip:
        yield from chunk.split(1)


def _picture(frame: torch.Tensor) -> Picture:
    return to_levels(frame)[0]


def _thumbnail(picture: Picture) -> Picture:
    cv2 = opencv()
    return cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA)


def _is_new_scene(before: Picture, after: Picture) -> bool:
    return bool(opencv().absdiff(before, after).mean() > NEW_SCENE)
