"""Which pack this is: the number that its users know, and a fingerprint of its code, for two checkouts may have the same number."""

import functools
import hashlib
import re
from pathlib import Path

PACK = Path(__file__).parents[2]
CODE = ("nodes/**/*.py", "subgraphs/*.json")  # what decides about a video


@functools.cache
def pack_version() -> str:
    """Of the pack that this process runs, which may have been updated since."""
    return version_on_disk()


def version_on_disk(pack: Path = PACK) -> str:
    """Such as 0.1.0+1f0c3a9b24d7e655; equal where number and code are."""
    number = re.search(r'^version = "([^"]+)"', (pack / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    digest = hashlib.sha256()
    for path in sorted(path.relative_to(pack).as_posix() for pattern in CODE for path in pack.glob(pattern)):
        content = (pack / path).read_bytes().replace(b"\r\n", b"\n")  # git's choice on Windows
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return f"{number[1] if number else '?'}+{digest.hexdigest()[:16]}"
