"""Where files go: below which of ComfyUI's folders, under which name, with the next number."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path, PureWindowsPath
from typing import Any

import folder_paths

from ...engine.frames import FrameStream
from ...engine.video.formats import AUTO, SEQUENCES, VideoFormat
from ...engine.video.names import dated, inert, portable, shortened
from ...engine.video.pictures.sequence import PartFolder, is_free, remove_stale_folders
from ...engine.video.write import Part, PartFile, remove_stale_parts

LONGEST_SUFFIX = "_0000001_clean.webm.part"
WIDGET = re.compile(r"%([^%.]+)\.([^%.]+)%")
SEPARATORS = ("/", "\\")


@dataclass(frozen=True)
class Place:
    """A claimed file or folder, and the folder around it below ComfyUI's output folder, or its temporary one."""

    part: Part
    subfolder: str

    def beside(self, word: str) -> Part:
        """The same name with a word at its end, for a second file. FileExistsError where it is taken."""
        target = self.part.target
        name = f"{target.stem}{'' if target.stem.endswith('_') else '_'}{word}{target.suffix}"
        return PartFolder(target.with_name(name)) if target.is_dir() else PartFile(target.with_name(name))


def root(temporary: bool) -> Path:
    """ComfyUI's output folder, or its temporary one."""
    return Path(folder_paths.get_temp_directory() if temporary else folder_paths.get_output_directory()).resolve()


def temporary_folder() -> Path:
    """ComfyUI's own, which it empties when it starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_prefix(filename_prefix: str, container: str = AUTO, save_output: bool = True) -> str:
    """The prefix as every file system takes it; ValueError when it names no file, leaves ComfyUI's folder, or names a folder that is in use."""
    output, exact = root(not save_output), names_folder(filename_prefix, container)
    prefix = portable(dated(filename_prefix.rstrip("/\\") if exact else filename_prefix, datetime.now()))
    if not prefix.strip() or prefix.rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; give a file name, for example video/Wan22.")
    if PureWindowsPath(filename_prefix).is_absolute() or not (output / prefix).resolve().is_relative_to(output):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; it must stay below the output folder {output}. "
                         "Remove the '..' or the leading '/', or the link that leads out of it.")
    prefix = shortened(prefix, output, LONGEST_SUFFIX)
    if exact and not is_free(output / prefix):
        raise ValueError(f"filename_prefix is '{filename_prefix}', and {output / prefix} is not empty, so that two sequences would mix. "
                         "Name another folder, or leave out the / at the end, and each run gets a folder of its own.")
    return prefix


def names_folder(filename_prefix: str, container: str) -> bool:
    """Whether a sequence goes into exactly this folder."""
    return container in SEQUENCES and filename_prefix.endswith(SEPARATORS)


def filled_in(filename_prefix: str, prompt: Mapping[str, Any] | None) -> str:
    """`%Node.widget%` replaced by the widget's value, the node by its class or its title: the front end does so too, but not for API prompts."""
    nodes = list((prompt or {}).values())

    def widget_value(asked: re.Match[str]) -> str:
        of_class, titled = ([node for node in nodes if name(node) == asked[1]] for name in (_class_of, _title_of))
        value = (of_class or titled)[0]["inputs"].get(asked[2]) if of_class or titled else None
        return asked[0] if value is None or isinstance(value, list) else inert(value)

    return WIDGET.sub(widget_value, filename_prefix)


def _class_of(node: Mapping[str, Any]) -> Any:
    return node["class_type"]


def _title_of(node: Mapping[str, Any]) -> Any:
    return node.get("_meta", {}).get("title")


def claimed(filename_prefix: str, stream: FrameStream, video: VideoFormat, save_output: bool = True) -> Place:
    """The next numbered file for this prefix, or folder for a sequence, claimed against other writers."""
    output, exact = root(not save_output), names_folder(filename_prefix, video.container)
    if exact:  # as core does it for numbered names
        filename_prefix = filename_prefix.replace("%width%", str(stream.width)).replace("%height%", str(stream.height))
    prefix = check_prefix(filename_prefix, video.container, save_output)
    if exact:
        return Place(PartFolder(output / prefix), Path(prefix).parent.as_posix().removeprefix("."))
    folder, name, first, subfolder, _ = folder_paths.get_save_image_path(prefix, str(output), stream.width, stream.height)
    remove_stale_parts(Path(folder), name)
    remove_stale_folders(Path(folder), name)
    return Place(_first_free(Path(folder) / name, first, video), subfolder)


def _first_free(stem: Path, first: int, video: VideoFormat) -> Part:
    for target in _numbered(stem, first):
        try:
            return PartFolder(target) if video.container in SEQUENCES else PartFile(target.with_name(f"{target.name}.{video.extension}"))
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")


def _numbered(stem: Path, first: int) -> Iterator[Path]:
    return (stem.with_name(f"{stem.name}_{number:05}_") for number in count(first))
