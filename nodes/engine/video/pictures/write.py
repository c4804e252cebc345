"""Which of the ways writes a clip as pictures."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...frames import FrameStream
from ..formats import SEQUENCES, VideoFormat
from ..write import Levels, Part
from . import gif, sequence, webp


def write_pictures(part: Part, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, tags: Mapping[str, object],
                   played_again: gif.PlayAgain) -> int:
    """Write `clip` to what `part` stands for, which appears whole or not at all; returns the number of frames.

    `played_again(clip)` yields `clip` from its beginning once it has ended; a GIF needs it. A GIF and JPEG files hold no tags.
    """
    try:
        if video.container == "gif":
            count = gif.write(part.path, clip, stream, video, played_again)
        else:
            count = (sequence if video.container in SEQUENCES else webp).write(part.path, clip, stream, video, tags)
    except BaseException:
        part.discard()
        raise
    part.keep()
    return count


def copy_without_tags(source: Path, part: Part) -> None:
    """The written pictures once more, without what `write_pictures` put beside them."""
    try:
        if isinstance(part, sequence.PartFolder):
            sequence.copy_without_tags(source, part.path)
        elif source.suffix == ".webp":
            webp.copy_without_tags(source, part.path)
        else:
            shutil.copyfile(source, part.path)
    except BaseException:
        part.discard()
        raise
    part.keep()
