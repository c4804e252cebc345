"""What clients upload is a whole safetensors file of a size that is allowed, and then a LoRA by its address; nothing else stays on the disk."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from wan22.api.settings import Settings
from wan22.api.uploads.storage import ARRIVING, INITIATE, INITIATE_PARTS, Uploads
from wan22.engine.fetch.rules import DownloadRefused, UploadRules

from app_server import Served, served
from file_host import LORA, OTHER

KEY = "key-0123456789abcdef"
KEYED = {"Authorization": f"Key {KEY}"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(Settings(enabled=True, keys=(KEY,)), Uploads(tmp_path, UploadRules(max_bytes=len(OTHER)))) as running:
        yield running


def file_of(uploads: Uploads, url: str) -> Path:
    file = asyncio.run(uploads.file(url))
    assert file is not None
    return file


def begun(server: Served, name: str = "mine.safetensors", path: str = INITIATE) -> str:
    reply = requests.post(f"{server.url}{path}?storage_type=fal-cdn-v3", json={"file_name": name, "content_type": "x/y"}, headers=KEYED, timeout=60)
    assert reply.status_code == 200 and reply.json()["upload_url"] == reply.json()["file_url"]
    return reply.json()["file_url"]


def sent_in_parts(url: str, *parts: bytes, order: tuple[int, ...] = ()) -> requests.Response:
    numbered = list(enumerate(parts, 1))
    for number, part in [numbered[place] for place in order] or numbered:
        reply = requests.put(f"{url}/{number}", data=part, timeout=60)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"partNumber": number, "etag": f'"{hashlib.sha256(part).hexdigest()}"'}
        assert reply.headers["ETag"] == reply.json()["etag"]
    return requests.post(f"{url}/complete", json={"parts": []}, timeout=60)


def kept(folder: Path) -> list[Path]:
    assert not [path for path in (folder / ARRIVING).glob("*")] and not list(folder.glob("*.part"))
    return list(folder.glob("*.safetensors"))


def test_a_file_is_known_by_its_address_afterwards_and_over_a_restart(server: Served, tmp_path: Path) -> None:
    url = begun(server)
    with pytest.raises(DownloadRefused, match="Upload it again"):
        file_of(server.desk.uploads, url)
    assert requests.put(url, data=LORA, timeout=60).status_code == 200
    for uploads in (server.desk.uploads, Uploads(tmp_path, UploadRules())):
        file = file_of(uploads, url)
        assert file.read_bytes() == LORA and file.name.startswith("mine-")
    for method, address in (("PUT", url), ("PUT", f"{url}/1"), ("POST", f"{url}/complete")):
        assert requests.request(method, address, data=OTHER, timeout=60).status_code == 200, "it is complete"
    assert kept(tmp_path) == [file]


@pytest.mark.parametrize("order", [(), (2, 0, 1), (0, 0, 1, 2)], ids=["in order", "in another", "one twice"])
def test_a_file_in_parts_is_the_same_file(server: Served, tmp_path: Path, order: tuple[int, ...]) -> None:
    url = begun(server, path=INITIATE_PARTS)
    assert sent_in_parts(url, LORA[:5], LORA[5:9000], LORA[9000:], order=order).status_code == 200
    assert file_of(server.desk.uploads, url).read_bytes() == LORA and len(kept(tmp_path)) == 1


def test_the_same_bytes_are_kept_once(server: Served, tmp_path: Path) -> None:
    urls = [begun(server) for _ in range(2)]
    for url in urls:
        requests.put(url, data=LORA, timeout=60)
    assert len({file_of(server.desk.uploads, url) for url in urls}) == len(kept(tmp_path)) == 1


@pytest.mark.parametrize(("content", "word"), [
    (b"GIF89a" * 100, "safetensors"), (b"", "truncated"), (LORA[:-1], "truncated"), (LORA + b"x", "header"), (OTHER + b"x", "uploads.max_bytes"),
    (b"x" * (len(OTHER) + 1), "uploads.max_bytes")], ids=["a picture", "nothing", "too short", "too long", "too large", "large and nothing"])
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "in parts"])
def test_what_is_no_file_to_use_is_refused_and_leaves_nothing(server: Served, tmp_path: Path, content: bytes, word: str, parted: bool) -> None:
    url = begun(server)
    if parted:
        half = len(content) // 2
        requests.put(f"{url}/1", data=content[:half], timeout=60)
        reply = requests.put(f"{url}/2", data=content[half:], timeout=60)
        reply = requests.post(f"{url}/complete", timeout=60) if reply.ok else reply
    else:
        reply = requests.put(url, data=content, timeout=60)
    (detail,) = reply.json()["detail"]
    assert reply.status_code == 422 and word in detail["msg"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c d?.safetensors", "\u72d0.safetensors", "", ".", "CON.safetensors", "x" * 400])
def test_a_name_leads_nowhere(server: Served, tmp_path: Path, name: str) -> None:
    url = begun(server, name)
    assert requests.put(url, data=LORA, timeout=60).status_code == 200
    assert kept(tmp_path) == [file_of(server.desk.uploads, url)]


def test_who_begins_needs_a_key_and_who_sends_the_address(server: Served) -> None:
    assert requests.post(server.url + INITIATE, json={"file_name": "x"}, timeout=60).status_code == 401
    url = begun(server)
    assert requests.put(url.replace(url.split("/")[-2], "0" * 48), data=LORA, timeout=60).status_code == 404
    assert requests.get(url, headers=KEYED, timeout=60).status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null"])
def test_what_cannot_be_begun_is_the_callers_fault(server: Served, body: bytes) -> None:
    assert requests.post(server.url + INITIATE, data=body, headers=KEYED, timeout=60).status_code == 400
    assert requests.put(f"{begun(server)}/zero", data=b"x", timeout=60).status_code == 400


def test_an_owner_who_takes_none_says_which_setting_allows_them(tmp_path: Path) -> None:
    with served(uploads=Uploads(tmp_path, UploadRules(enabled=False))) as running:
        reply = requests.post(running.url + INITIATE, json={"file_name": "x"}, timeout=60)
        assert reply.status_code == 403 and "uploads.enabled" in reply.json()["detail"]


@pytest.mark.parametrize("path", ["mine.safetensors", "owner/repo", "https://example.com/x.safetensors", "https://example.com/fal/storage/files/x/y"])
def test_other_paths_are_none_of_its_files(tmp_path: Path, path: str) -> None:
    assert asyncio.run(Uploads(tmp_path, UploadRules()).file(path)) is None


def test_what_is_begun_and_forgotten_does_not_pile_up(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wan22.api.uploads.storage.MOST_PENDING", 2)
    urls: list[Any] = []
    for _ in range(4):
        urls.append(begun(server))
        requests.put(f"{urls[-1]}/1", data=b"x", timeout=60)
    assert [requests.put(url, data=LORA, timeout=60).status_code for url in urls] == [404, 404, 200, 200]
    assert len(kept(tmp_path)) == 1
