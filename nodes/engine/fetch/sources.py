"""Where a request's LoRA is: a file the server has, a file in a Hugging Face repository, or one at an https address."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from yarl import URL

from .addresses import shown
from .rules import HUB, DownloadRefused

SUFFIX = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
MAX_PATH = 8192
LISTED = 20
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[\w])?"  # the hub's own rule for names: https://huggingface.co/docs/huggingface_hub, validate_repo_id
_REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_HUB_PAGE = re.compile(rf"/(?P<repo>{_PART}/{_PART})(?:/tree/(?P<revision>[^/]+))?/?", re.ASCII)
_HUB_FILE = re.compile(rf"(?P<repo>/{_PART}/{_PART})/(?:blob|raw|resolve)(?P<file>/[^/]+/.+)", re.ASCII)


@dataclass(frozen=True)
class LocalFile:
    """A file that the server has, by the name it is listed under."""

    name: str


@dataclass(frozen=True)
class RepoFile:
    """A file in a Hugging Face repository; without a name the only .safetensors file there."""

    repo: str
    weight_name: str = ""
    revision: str = "main"

    def address(self, hub: str) -> str:
        """The file's address, or the one that lists the repository's files."""
        if self.weight_name:
            return f"{hub}/{self.repo}/resolve/{quote(self.revision, safe='%')}/{quote(self.weight_name)}"
        return f"{hub}/api/models/{self.repo}/revision/{quote(self.revision, safe='%')}"

    def __str__(self) -> str:
        return f"{self.repo}/{self.weight_name}" if self.weight_name else self.repo


@dataclass(frozen=True)
class WebFile:
    """A file at an https address, which may hold a token."""

    url: str = field(repr=False)

    def address(self, hub: str) -> str:
        return self.url

    def __str__(self) -> str:
        return shown(self.url)


LoRASource = LocalFile | RepoFile | WebFile


def lora_source(path: str, weight_name: str | None, local_names: Collection[str]) -> LoRASource:
    """What a request's `path` and `weight_name` name. DownloadRefused for what is none of the three kinds.

    `local_names` are the files below the loras folders; one of them wins over a repository of the same spelling. `weight_name` counts for
    repositories only, as the hosted endpoint documents it.
    """
    if not path.strip() or len(path) > MAX_PATH or "\0" in path:
        raise DownloadRefused(f"a LoRA's path has {len(path)} characters; it must have 1 to {MAX_PATH}, and no NUL.")
    if (local := _listed(path, local_names)) is not None:
        return LocalFile(local)
    if re.match(r"[A-Za-z][\w+.-]+:/", path):
        return _on_the_web(path, weight_name or "")
    check_relative(path)
    if _is_repo(path):
        return RepoFile(path, _weight_name(weight_name or ""))
    raise DownloadRefused(f"'{shown(path)}' is no LoRA this server has, no Hugging Face repository (owner/name) and no https address. "
                          "Local files are named as ComfyUI lists them, such as folder/file.safetensors.")


def local_file(name: str, folders: Iterable[Path]) -> Path:
    """The file of a local name in one of `folders`. DownloadRefused where there is none, or where a link leads out of the folder."""
    check_relative(name)
    for folder in folders:
        file = (folder / name.replace("\\", "/")).resolve()
        if file.is_file():
            if file.is_relative_to(folder.resolve()):
                return file
            raise DownloadRefused(f"the LoRA '{shown(name)}' is a link to a file outside the loras folders. Copy it there, or add its folder to "
                                  "extra_model_paths.yaml.")
    raise DownloadRefused(f"this server has no LoRA '{shown(name)}'. Press R in ComfyUI to refresh the list.")


def check_relative(name: str) -> None:
    """DownloadRefused unless `name` stays below the folder it is looked for in, on every system."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ":" in name or "\0" in name or any(part.strip(" .") == "" for part in parts):
        raise DownloadRefused(f"'{shown(name)}' is no path inside a folder. It must be relative, without '..', drive letters or empty parts.")


def chosen(names: Iterable[str], repo: str) -> str:
    """The only .safetensors file among a repository's; DownloadRefused, with a list, where there is none or a choice."""
    candidates = sorted(name for name in names if name.endswith(SUFFIX))
    if len(candidates) != 1:
        more = f" and {len(candidates) - LISTED} more" if len(candidates) > LISTED else ""
        listed = ", ".join(shown(name) for name in candidates[:LISTED]) + more
        cure = f"Name one as weight_name: {listed}." if candidates else "Only safetensors files are used."
        raise DownloadRefused(f"the repository {repo} has {len(candidates)} .safetensors files; without weight_name there must be 1. {cure}")
    return _weight_name(candidates[0])


def _listed(path: str, local_names: Collection[str]) -> str | None:
    """The listed name that `path` spells, with either slash, with or without its ending."""
    by_spelling = {name.replace("\\", "/"): name for name in local_names}
    wanted = path.replace("\\", "/")
    match = by_spelling.get(wanted, by_spelling.get(wanted + SUFFIX))
    if match is not None:
        check_relative(match)
    return match


def _on_the_web(path: str, weight_name: str) -> RepoFile | WebFile:
    try:
        url = URL(path, encoded=path.isascii())
        host = (url.raw_host or "").lower()
    except ValueError:
        raise DownloadRefused(f"'{shown(path)}' is no address. It must look like https://example.com/folder/file.safetensors.") from None
    if url.scheme != "https" or host not in HUB_HOSTS or url.explicit_port not in (None, 443) or "@" in url.raw_authority:
        return WebFile(path)
    if page := _HUB_PAGE.fullmatch(url.raw_path):
        return RepoFile(page["repo"], _weight_name(weight_name), page["revision"] or "main")
    if file := _HUB_FILE.fullmatch(url.raw_path):
        query = f"?{url.raw_query_string}" if url.raw_query_string else ""
        return WebFile(f"{HUB}{file['repo']}/resolve{file['file']}{query}")
    return WebFile(path)


def _is_repo(path: str) -> bool:
    return _REPO.fullmatch(path) is not None and "--" not in path and ".." not in path and not path.endswith((SUFFIX, *PICKLES))


def _weight_name(name: str) -> str:
    """A file name inside a repository, with its ending; empty where there is none."""
    if not name:
        return ""
    check_relative(name)
    if PurePosixPath(name).suffix.lower() in PICKLES:
        raise DownloadRefused(f"weight_name is '{shown(name)}', a pickle, which can run code. Name a {SUFFIX} file.")
    return name if name.endswith(SUFFIX) else name + SUFFIX
