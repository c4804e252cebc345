"""Names of files that every file system takes: Windows lacks some characters and names, and none takes names of any length."""

import os
import re
import sys
from datetime import datetime
from pathlib import Path

FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
SEPARATORS = re.compile(r"[/\\]")
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
MOST_BYTES = 255  # of one name, where the file system does not say
MOST_CHARACTERS = 259 if os.name == "nt" else 4095  # of a whole path
DATE = re.compile(r"%date:([^%]*)%")
DATE_PARTS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}


def dated(text: str, now: datetime) -> str:
    """`%date:yyyy-MM-dd_hh-mm-ss%` filled in as ComfyUI's front end does it: yyyy, yy, and M, d, h, m, s of one or two digits."""
    return DATE.sub(lambda found: re.sub(r"y{2,4}|dd?|MM?|hh?|mm?|ss?", lambda part: _date_part(part[0], now), found[1]), text)


def _date_part(letters: str, now: datetime) -> str:
    if letters[0] == "y":
        return {"yy": f"{now.year % 100:02}", "yyyy": f"{now.year}"}.get(letters, letters)
    return str(getattr(now, DATE_PARTS[letters[0]])).zfill(len(letters))


def inert(value: object) -> str:
    """A widget's value as a part of a name: without separators."""
    return SEPARATORS.sub("_", FORBIDDEN.sub("_", str(value)))


def portable(path: str) -> str:
    """Folders and a name with / between them; what some file system lacks is replaced by _."""
    *folders, name = (_portable(part) for part in SEPARATORS.split(path))
    return "/".join([*(folder if folder in ("", ".", "..") else folder.rstrip(" .") or "_" for folder in folders), name])


def _portable(part: str) -> str:
    encoding = sys.getfilesystemencoding()
    text = FORBIDDEN.sub("_", part.encode(encoding, "replace").decode(encoding))
    return f"_{text}" if text.split(".")[0].rstrip().lower() in RESERVED else text


def shortened(path: str, folder: Path, suffix: str) -> str:
    """`path` with each name as long as `folder`'s file system takes, with room for `suffix`. ValueError where the folders alone are too long."""
    most = _most_bytes(folder)
    *folders, name = path.split("/")
    place = "/".join(_cut(each, most) for each in folders)
    room = MOST_CHARACTERS - len(str(folder / place)) - 1 - len(suffix)
    if room < 1:
        raise ValueError(f"filename_prefix and the output folder make a path of more than {MOST_CHARACTERS} characters; "
                         "name fewer or shorter folders.")
    name = _cut(name, most - len(suffix))[:room]
    return f"{place}/{name}" if folders else name


def _cut(name: str, most: int) -> str:
    return name.encode()[:most].decode(errors="ignore")


def _most_bytes(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or no such folder yet
        return MOST_BYTES
