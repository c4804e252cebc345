"""A request in the gateway: an API job that also knows what was asked for, so that another worker, or another gateway, can begin it again."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from nodes.api.headers import DURATION, LIFECYCLE, PRIORITY, STORE_IO
from nodes.api.jobs.job import COMPLETED, IN_QUEUE, Job

from .dispatch import Needs

KEPT_BY_A_WORKER = 600  # seconds: the video is fetched at once


@dataclass
class ClusterJob(Job):
    """`request` is the body with its seed, until the job is complete; `local_loras` are files that its worker must have; `files` are the uploads that
    it names, as address and file; `arrival` is its place among equals, in seconds since 1970; `strikes` counts workers lost under it."""

    request: dict[str, Any] | None = None
    base_url: str = ""
    local_loras: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    arrival: float = 0.0
    strikes: int = 0
    attempts: int = 0

    @property
    def priority(self) -> int:
        return -1 if self.preferences.low else 0

    @property
    def needs(self) -> Needs:
        """Its stack: which LoRAs, how strong and where; whoever has them loaded has the experts patched already."""
        loras = (self.request or {}).get("loras", [])
        stack = hashlib.sha256(json.dumps(loras, sort_keys=True).encode()).hexdigest()[:12]
        return Needs(stack, frozenset(self.local_loras), ("private",) if loras and self.preferences.private else tuple(map(shown, loras)))

    def wait_again(self) -> None:
        """It is not computed any more, and nothing of it is there."""
        if self.status != COMPLETED:
            self.status, self.started = IN_QUEUE, None

    def headers(self) -> dict[str, str]:
        """The caller's wishes as its ComfyUI needs to know them. When it must start is the gateway's affair."""
        wishes = {LIFECYCLE: json.dumps({DURATION: KEPT_BY_A_WORKER})}
        return wishes | ({STORE_IO: "0"} if self.preferences.private else {}) | ({PRIORITY: "low"} if self.preferences.low else {})

    def record(self) -> dict[str, Any]:
        record = super().record()
        return record | {"request": None, "files": {}} if self.answer is not None else record


def shown(lora: dict[str, Any]) -> str:
    """A LoRA of a request in a few words. Of an address only host and file: what stands between may be a secret."""
    path, name = str(lora["path"]), str(lora.get("weight_name") or "")
    if ":/" in path:
        path = f"{_host(path)}/.../{re.split('[?#]', path)[0].rstrip('/').rpartition('/')[2]}"
    return f"{path[-120:]}{'/' + name[-120:] if name else ''} x {lora.get('scale', 1.0):g}, {lora.get('transformer', 'high')}"


def _host(address: str) -> str:
    """Of an upload's address it may be anything: only the secret in it is looked at."""
    try:
        return urlsplit(address).hostname or "?"
    except ValueError:
        return "?"
