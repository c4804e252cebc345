"""What a LoRA's path means: a local file, a repository or an address; nothing leads out of the folder."""

from pathlib import Path

import pytest

from engine.fetch.rules import HUB, DownloadRefused
from engine.fetch.sources import LocalFile, RepoFile, WebFile, local_file, lora_source

NAMES = ("wan/high.safetensors", "low.safetensors", "owner/name.safetensors", "sub\\windows.safetensors", "old.pt")


@pytest.mark.parametrize(("path", "name"), [
    ("low.safetensors", "low.safetensors"), ("low", "low.safetensors"), ("wan/high", "wan/high.safetensors"), ("wan\\high", "wan/high.safetensors"),
    ("sub/windows", "sub\\windows.safetensors"), ("owner/name", "owner/name.safetensors"), ("old.pt", "old.pt")])
def test_a_listed_name_is_a_local_file_with_either_slash_and_without_its_ending(path: str, name: str):
    assert lora_source(path, None, NAMES) == LocalFile(name)


@pytest.mark.parametrize(("path", "weight_name", "source"), [
    ("alibaba-pai/Wan2.2-Fun_x", None, RepoFile("alibaba-pai/Wan2.2-Fun_x")), ("a/b", "x.safetensors", RepoFile("a/b", "x.safetensors")),
    ("a/b", "sub/x", RepoFile("a/b", "sub/x.safetensors")), ("https://huggingface.co/a/b", "", RepoFile("a/b")),
    ("https://huggingface.co/a/b/", "x", RepoFile("a/b", "x.safetensors")),
    ("https://hf.co/a/b/tree/dev", "x.v1", RepoFile("a/b", "x.v1.safetensors", "dev")),
    ("https://huggingface.co/a/b/blob/main/s/x.safetensors", None, WebFile("https://huggingface.co/a/b/resolve/main/s/x.safetensors")),
    ("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y.safetensors?download=true", "ignored",
     WebFile("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y.safetensors?download=true")),
    ("https://civitai.com/api/download/models/1?type=Model&format=SafeTensor", None,
    WebFile("https://civitai.com/api/download/models/1?type=Model&format=SafeTensor"))])
def test_repositories_and_addresses(path: str, weight_name: str | None, source: RepoFile | WebFile):
    assert lora_source(path, weight_name, NAMES) == source


def test_addresses_of_repository_files():
    assert RepoFile("a/b", "s p/x.safetensors").address(HUB) == "https://huggingface.co/a/b/resolve/main/s%20p/x.safetensors"
    assert RepoFile("a/b", "", "refs%2Fpr%2F1").address(HUB) == "https://huggingface.co/api/models/a/b/revision/refs%2Fpr%2F1"


OUTSIDE = ["../secret", "..\\secret", "wan/../../secret", "wan\\..\\..\\secret", "/etc/passwd", "\\windows\\win.ini", "C:\\secret", "C:/secret",
    "c:secret",
           "\\\\server\\share\\x", "//server/share/x", "\\\\?\\C:\\x", "low.safetensors\0.png", "%2e%2e/secret", "%2e%2e%2fsecret", "..", ".",
           "./low", "wan//high",
           "wan/./high", "... /x", "~/x.safetensors", "low.safetensors::$DATA", "", " ", "x" * 9000, "owner/na..me", "a/b/c", "missing", "a/b.pt",
           "https:evil"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_spelling_leads_out_of_the_folder(path: str, tmp_path: Path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "secret").touch()
    with pytest.raises(DownloadRefused):
        lora_source(path, None, NAMES)
    with pytest.raises((DownloadRefused, OSError)):
        local_file(path, [tmp_path / "loras"])


@pytest.mark.parametrize("name", ["../x", "..\\x.safetensors", "/x", "C:x", "a/\0", "x.pt", "x.CKPT", "a//b"])
def test_weight_names_stay_in_the_repository_and_are_no_pickles(name: str):
    with pytest.raises(DownloadRefused):
        lora_source("a/b", name, NAMES)


def test_links_out_of_the_folder_are_refused_and_others_followed(tmp_path: Path):
    inside, outside = tmp_path / "loras", tmp_path / "private.safetensors"
    (inside / "wan").mkdir(parents=True)
    outside.write_bytes(b"x")
    (inside / "real.safetensors").write_bytes(b"y")
    (inside / "out.safetensors").symlink_to(outside)
    (inside / "wan" / "in.safetensors").symlink_to(inside / "real.safetensors")
    (inside / "up").symlink_to(tmp_path, target_is_directory=True)
    for name in ("out.safetensors", "up/private.safetensors"):
        with pytest.raises(DownloadRefused, match="outside"):
            local_file(name, [tmp_path / "none", inside])
    assert local_file("wan/in.safetensors", [tmp_path / "none", inside]).read_bytes() == b"y"
