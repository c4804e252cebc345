"""Names of LoRAs and of stacks: text that leads nowhere but below its folder, on every system."""

import re
import unicodedata

from ...pairs import with_slashes
from ...video.names import portable

SUFFIX = ".json"
MOST_NAME = 1000  # characters of a name with its folders
MOST_PART = 200  # bytes of one folder's name or the file's
DRIVE = re.compile(r"[A-Za-z]:")


def is_text(text: str) -> bool:
    """Without control characters and half characters."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def leads_out(name: str) -> bool:
    """Whether a name is none below a folder: empty, absolute, with a drive, or with a step up."""
    return any(part in ("", ".", "..") for part in with_slashes(name).split("/")) or DRIVE.match(name) is not None


def check_lora_name(name: str) -> None:
    """ValueError unless the name is text that stays in a loras folder."""
    if len(name) > MOST_NAME or not is_text(name):
        raise ValueError(f"file is {name[:80]!r}; it must be at most {MOST_NAME} characters of text, without line breaks.")
    if leads_out(name):
        raise ValueError(f"file is '{name}', which leads out of models/loras. Name a file in it, such as style.safetensors or styles/a.safetensors.")


def file_named(name: str) -> str:
    """The file for a stack that a user named, with / between folders: what some file system lacks is replaced, as in names of videos.

    ValueError for what is no name, too long, or outside of the stacks folder.
    """
    plain = name.strip()
    plain = plain[: -len(SUFFIX)] if plain.lower().endswith(SUFFIX) else plain
    if leads_out(plain) or not is_text(plain):
        raise ValueError(f"name is {name!r}; it must be a name below models/loras/stacks, such as my_stack or anime/my_stack.")
    path = portable(plain) + SUFFIX
    if any(len(part.encode()) > MOST_PART for part in path.split("/")) or len(path) > MOST_NAME:
        raise ValueError(f"name is '{name[:80]}...'; each part of it must be at most {MOST_PART - len(SUFFIX)} bytes. Choose a shorter one.")
    return path
