"""A folder with a picture file for each frame, which gets its name when it is whole."""

import contextlib
import glob
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...frames import FrameStream
from ..formats import VideoFormat
from ..write import STALE_SECONDS, WAITS, Levels, tag
from .stills import encoded, encoder, with_texts, without_texts

MOST_PIXELS = {"png": 2**31 - 1, "jpg": 65535}
FINISHED = "finished"  # a file in a part folder that is whole and could not get its name
PART = ".part"


class PartFolder:
    """The folder beside `target` that is filled first; claiming it keeps other writers from the same name. As `PartFile`, for a sequence."""

    def __init__(self, target: Path) -> None:
        """FileExistsError when its part folder is there already, or something else than an empty folder where the target is to be."""
        self.target, self.path = target, target.with_name(target.name + PART)
        self.path.mkdir(parents=True)
        if not is_free(target):
            self.discard()
            raise FileExistsError(target)

    def keep(self) -> None:
        """Give the finished folder its name. OSError that says where it is, if that cannot be done."""
        for seconds in WAITS:
            try:
                with contextlib.suppress(FileNotFoundError):
                    self.target.rmdir()  # Windows puts no folder in an empty one's place
                self.path.rename(self.target)
                return
            except OSError as error:
                reason = error
                time.sleep(seconds)
        (self.path / FINISHED).touch()
        raise OSError(reason.errno, f"the finished pictures are kept in {self.path}, and the folder could not be named {self.target.name} "
                                    f"({reason.strerror}). Close the program that holds it and rename it") from reason

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def is_free(folder: Path) -> bool:
    """Whether a sequence can have this name: nothing is there, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def remove_stale_folders(folder: Path, name: str) -> None:
    """Delete what killed processes left of sequences called `name`_...; a process that lives adds pictures all the time. Whole ones stay."""
    for part in folder.glob(f"{glob.escape(name)}_*{PART}"):
        with contextlib.suppress(OSError):
            if part.is_dir() and time.time() - part.stat().st_mtime > STALE_SECONDS and not (part / FINISHED).exists():
                shutil.rmtree(part)


def write(folder: Path, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, tags: Mapping[str, object]) -> int:
    """Write each frame into `folder`, from 00001 on; returns how many. `tags` go into the first PNG, where ComfyUI reads them; a JPEG holds none."""
    if max(stream.width, stream.height) > MOST_PIXELS[video.container]:
        raise ValueError(f"the picture is {stream.width}x{stream.height}, and jpg takes {MOST_PIXELS[video.container]} pixels a side. "
                         "Resize it before it is saved, or choose the container png.")
    count = 0
    for picture in encoded(clip, encoder(video)):
        if count == 0 and video.container == "png":
            picture = with_texts(picture, {name: tag(value) for name, value in tags.items()})
        count += 1
        picture_path(folder, count, video.container).write_bytes(picture)
    return count


def picture_path(folder: Path, number: int, extension: str) -> Path:
    return folder / f"{number:05}.{extension}"


def copy_without_tags(source: Path, target: Path) -> None:
    """The same pictures in another folder, which must be there, the first one without text chunks."""
    first, *others = sorted(source.iterdir())
    for picture in others:
        shutil.copyfile(picture, target / picture.name)
    content = first.read_bytes()
    (target / first.name).write_bytes(without_texts(content) if first.suffix == ".png" else content)
