"""The cache folder: for each address a part that grows, the finished file under a readable name, and a record of what it must be."""

import asyncio
import hashlib
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .sources import SUFFIX

MAX_NAME = 120  # bytes; encrypted file systems allow 143
LOCK_POLL = 0.2  # seconds
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class Entry:
    """What the folder holds for one address: `<sha256>.part` with `.etag` while it arrives, `.json` for what has come, `.lock`."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        key = folder / hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
        self.part, self.lock = key.with_suffix(".part"), key.with_suffix(".lock")
        self._etag, self._record = key.with_suffix(".etag"), key.with_suffix(".json")

    def file(self) -> Path | None:
        """The finished file, hashed again where its size or time changed; None where it is missing or another one."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            path = self.folder / Path(record["file"]).name
            now = path.stat()
            if (now.st_size, now.st_mtime_ns) == (record["bytes"], record["mtime_ns"]):
                return path
            if sha256_of(path) != record["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._write_record(path, record["sha256"], record["from"])
        return path

    def resumable(self) -> tuple[int, str]:
        """Bytes that have come and the ETag they belong to; 0 and nothing where a new start is needed."""
        try:
            etag, size = self._etag.read_text(encoding="utf-8"), self.part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        return (size, etag) if size and etag else (0, "")

    def begin(self, etag: str) -> None:
        """An empty part, of a file with this ETag; without one it cannot be resumed."""
        self.forget()
        self.part.touch()
        if etag:
            self._etag.write_text(etag, encoding="utf-8")

    def forget(self) -> None:
        for path in (self.part, self._etag):
            path.unlink(missing_ok=True)

    def finish(self, wanted: str, sha256: str, origin: str) -> Path:
        """Give the part its name and record it. A file that is there already with the same bytes stays: it may be in use."""
        path = self.folder / file_name(wanted, sha256)
        if not (path.is_file() and path.stat().st_size == self.part.stat().st_size and sha256_of(path) == sha256):
            self.part.replace(path)
        self.forget()
        self._write_record(path, sha256, origin)
        return path

    def _write_record(self, path: Path, sha256: str, origin: str) -> None:
        now = path.stat()
        record = {"from": origin, "file": path.name, "bytes": now.st_size, "mtime_ns": now.st_mtime_ns, "sha256": sha256}
        written = self._record.with_suffix(".new")
        written.write_text(json.dumps(record, indent=1), encoding="utf-8")
        written.replace(self._record)


def file_name(wanted: str, sha256: str) -> str:
    """`<stem>-<first 16 of sha256>.safetensors`, at most MAX_NAME bytes, for every file system; `wanted` is what a server calls the file."""
    plain = unicodedata.normalize("NFKC", re.split(r"[/\\]", wanted)[-1]).removesuffix(SUFFIX)
    ending = f"-{sha256[:16]}{SUFFIX}"
    stem = re.sub(r"[^\w.()+ -]", "_", plain).lstrip(". ")
    stem = f"_{stem}" if RESERVED.match(stem) else stem
    cut = stem.encode("utf-8", "ignore")[:MAX_NAME - len(ending)].decode("utf-8", "ignore").rstrip(". ")
    return (cut or "lora") + ending


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


@asynccontextmanager
async def locked(path: Path, waits: Callable[[], None]) -> AsyncIterator[None]:
    """Alone among all processes; the system frees the lock of one that dies. `waits` is called once if there is another."""
    lock = FileLock(path)
    others = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not others:
                waits()
            others = True
            await asyncio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
