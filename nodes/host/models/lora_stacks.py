"""Stacks of LoRAs in models/loras/stacks: listed as ComfyUI lists models, read, matched with the files that are here, and saved."""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import folder_paths

from ...engine.fetch.cache import sha256_of
from ...engine.lora.about import harmless, trigger_words
from ...engine.lora.read import read_metadata
from ...engine.lora.routing import MAX_SCALE, LoraChoice
from ...engine.lora.stacks.format import MOST_BYTES, SavedLora, StackError, read_stack, stack_text
from ...engine.lora.stacks.links import link_of, links_in
from ...engine.lora.stacks.names import SUFFIX, file_named
from ...engine.model_files import missing_file
from ...engine.pairs import with_slashes
from ..messages import counted
from .files import listed_name, model_names
from .lora import lora_path

LORAS, FOLDER = "loras", "stacks"
NOTHING_YET = "(none in models/loras/stacks)"
MOST_HASHES = 1000  # of files that are remembered
MOST_SHOWN = 120  # characters of what a stack's file says


@dataclass(frozen=True)
class LoadedStack:
    """What a saved stack is on this machine: its LoRAs by the names that ComfyUI lists, a line for each, and what to warn of."""

    choices: tuple[LoraChoice, ...]
    lines: list[str]
    warnings: list[str]


def stack_names() -> list[str]:
    """The saved stacks of all loras folders, with / between folders; where there is none, words that say so."""
    return list(_stacks()) or [NOTHING_YET]


def check_stack(name: str, scale: float) -> None:
    """StackError unless the stack can be read, its scales stay in their range, and all its files are here."""
    loras = _read(name)
    _scaled(name, loras, scale)
    if missing := [missing_file(LORAS, lora.choice.name, lora.url) for lora in loras if _file_of(lora) is None]:
        raise StackError(f"the stack '{name}' lacks files: {' '.join(missing)}")


def load_stack(name: str, scale: float) -> LoadedStack:
    """The LoRAs of a saved stack, with every scale multiplied by `scale`. StackError as `check_stack`."""
    check_stack(name, scale)
    loras = _read(name)
    files = [_file_of(lora) or lora.choice.name for lora in loras]
    choices = tuple(replace(choice, name=file) for choice, file in zip(_scaled(name, loras, scale), files, strict=True))
    lines = [_line(lora, choice) for lora, choice in zip(loras, choices, strict=True)]
    others = [file for lora, file in counted(list(zip(loras, files, strict=True))) if not _is_same(lora, lora_path(file))]
    return LoadedStack(choices, lines, [f"{file} is not the file that was saved in '{name}': it has the same name and another content"
                                        for file in others])


def choices_as_saved(name: str, scale: float) -> list[LoraChoice]:
    """The LoRAs of a stack by the names that it was saved with, whether these files are here or not. StackError as `check_stack`, but for files."""
    return _scaled(name, _read(name), scale)


def fingerprint(name: str) -> str:
    """Another text whenever the stack, or a file that it means, is another one."""
    try:
        loras = _read(name)
        files = [_file_of(lora) for lora in loras]
        return hashlib.sha256(repr((loras, [file and (file, _state(lora_path(file))) for file in files])).encode()).hexdigest()
    except (ValueError, OSError) as error:  # it will be said when the node is checked or run
        return str(error)


def save_stack(choices: Sequence[LoraChoice], name: str, overwrite: bool, workflow: object) -> str:
    """Write a stack to models/loras/stacks, whole or not at all, and say where it is.

    A stack of that name that says the same stays; StackError for another one, unless it may be overwritten. Addresses come from the official list,
    the workflow, and stacks that have the same file; trigger words from the file's metadata, or from such stacks.
    """
    file = file_named(name)
    links = links_in(workflow)
    known = {lora.sha256: lora for lora in _all_saved()}
    content = stack_text([_saved(choice, links, known) for choice in counted(choices)]).encode()
    there = _there(file)
    if there is not None and _holds(there, content):
        return f"{there} holds this stack already"
    if there is not None and not overwrite:
        raise StackError(f"'{file}' in models/loras/stacks holds another stack. Set overwrite, or choose another name.")
    path = _write(file, content, there)
    return f"Saved {len(choices)} LoRA{'s' if len(choices) != 1 else ''} as {path}. Press R, and Wan 2.2 LoRA Stack lists {file}"


def state_of_saved(name: str) -> str:
    """Another text whenever the file of the stack of this name is another one, and each time while there is none."""
    try:
        there = _there(file_named(name))
        return repr((there, _state(there))) if there else secrets.token_hex(8)
    except (ValueError, OSError) as error:  # it will be said when the node is checked or run
        return str(error)


def _there(file: str) -> Path | None:
    """Where a stack of that name is."""
    return next((place / file for place in _places() if (place / file).exists()), None)


def _stacks() -> dict[str, Path]:
    """Stacks by name, the first loras folder first."""
    found: dict[str, Path] = {}
    for place in _places():
        files, _ = folder_paths.recursive_search(str(place), excluded_dir_names=[".git"])
        for file in folder_paths.filter_files_extensions(files, [SUFFIX]):
            found.setdefault(with_slashes(file), place / file)
    return dict(sorted(found.items()))


def _places() -> list[Path]:
    return [Path(folder) / FOLDER for folder in folder_paths.get_folder_paths(LORAS)]


def _read(name: str) -> tuple[SavedLora, ...]:
    path = _stacks().get(with_slashes(name))
    if path is None:
        if name == NOTHING_YET:
            raise StackError("no stack is saved yet. Wan 2.2 Save LoRA Stack writes them to models/loras/stacks; then press R in ComfyUI.")
        raise StackError(f"the stack '{name}' is not in models/loras/stacks. Put it there and press R in ComfyUI to refresh the list.")
    try:
        with path.open("rb") as file:
            return read_stack(file.read(MOST_BYTES + 1), name)
    except OSError as error:
        raise StackError(f"the stack '{name}' cannot be read: {error}.") from error


def _all_saved() -> Iterator[SavedLora]:
    for name in _stacks():
        try:
            yield from _read(name)
        except StackError:  # it will say so to whoever chooses it
            continue


def _scaled(name: str, loras: Sequence[SavedLora], scale: float) -> list[LoraChoice]:
    made = []
    for lora in loras:
        if not abs(lora.choice.scale * scale) <= MAX_SCALE:
            raise StackError(f"scale is {scale}, which makes {lora.choice.scale:g} of {lora.choice.name} in '{name}' {lora.choice.scale * scale:g}; "
                             f"every scale must stay between {-MAX_SCALE} and {MAX_SCALE}. Choose a smaller one.")
        made.append(replace(lora.choice, scale=lora.choice.scale * scale))
    return made


def _file_of(lora: SavedLora) -> str | None:
    """The file that a saved LoRA means, as ComfyUI lists it: the one of its name, else one of its content under any name."""
    listed = listed_name(LORAS, lora.choice.name)
    if folder_paths.get_full_path(LORAS, listed) is not None:
        return listed
    if lora.size is None:
        return None
    return next((name for name in model_names(LORAS) if (path := folder_paths.get_full_path(LORAS, name)) and _is_same(lora, Path(path))), None)


def _is_same(lora: SavedLora, path: Path) -> bool:
    """Whether a file has the content that was saved; a file of another size is not read."""
    size, mtime = _state(path)
    return lora.size in (None, size) and _sha256(path, size, mtime) == lora.sha256


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(MOST_HASHES)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of a file while its size and time of change are these: a queue hashes no gigabyte that was hashed before."""
    return sha256_of(path)


def _line(lora: SavedLora, choice: LoraChoice) -> str:
    found = "" if with_slashes(choice.name) == with_slashes(lora.choice.name) else f" (saved as {harmless(lora.choice.name, MOST_SHOWN)})"
    when = "" if choice.span.is_whole else f", {choice.span.describe()}"
    words = harmless(", ".join(lora.trigger_words), MOST_SHOWN)
    return f"{choice.name}{found}: scale {choice.scale:g}, {choice.target}{when}{f'; trigger words: {words}' if words else ''}"


def _saved(choice: LoraChoice, links: dict[str, str], known: dict[str, SavedLora]) -> SavedLora:
    path = lora_path(choice.name)
    size, mtime = _state(path)
    sha256 = _sha256(path, size, mtime)
    before = known.get(sha256)
    words = trigger_words(read_metadata(path)) or (before.trigger_words if before else ())
    url = link_of(choice.name, links) or (before.url if before else "")
    return SavedLora(replace(choice, name=with_slashes(listed_name(LORAS, choice.name))), sha256, size, url, words)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _write(file: str, content: bytes, there: Path | None) -> Path:
    """The path it was written to: over the one that is there, else in the first loras folder that takes it."""
    refusals = []
    for path in [there] if there else [place / file for place in _places()]:
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
            return path
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            refusals.append(str(error))
    raise StackError(f"no loras folder takes the stack: {'; '.join(refusals)}. Free some space, or let ComfyUI write there.")
