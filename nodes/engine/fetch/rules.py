"""What the server's owner allows of downloads, and the two ways in which one ends badly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from yarl import URL

from .addresses import AddressRules, check_url

HUB = "https://huggingface.co"
HOSTS = ("huggingface.co", "civitai.com", "civitai.red")  # Civitai shows all its models only under its second name
REDIRECT_HOSTS = ("*.hf.co", "*.huggingface.co", "*.civitai.com", "*.r2.cloudflarestorage.com")
"""Where the hosts above keep their files. Hugging Face's guide "Downloading behind a proxy or firewall" names these wildcards; Civitai's links lead
to b2.civitai.com or to civitai-delivery-worker-prod.<account>.r2.cloudflarestorage.com. Anyone can rent storage there: no request may name them."""


class DownloadRefused(ValueError):
    """The request must change: its path is wrong or not allowed here, or what it names is no LoRA."""


class DownloadFailed(OSError):
    """The network, the other server or the disk failed; the same request may succeed later."""


@dataclass(frozen=True)
class DownloadRules:
    """Whether LoRAs are downloaded at all, from where, how much and how patiently. ValueError for settings that make no sense.

    `connect_seconds` is the limit until a server is connected, `stall_seconds` the longest wait for its next bytes. `tokens` holds one per host,
    which never appears in a text. `networks` and `plain_http` open what is closed otherwise, see AddressRules. `hub` may name a mirror.
    """

    enabled: bool = False
    allowed_hosts: tuple[str, ...] = HOSTS
    redirect_hosts: tuple[str, ...] = REDIRECT_HOSTS
    max_bytes: int = 4 * 2**30
    connect_seconds: float = 15.0
    stall_seconds: float = 60.0
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    networks: tuple[str, ...] = ()
    plain_http: bool = False
    hub: str = HUB

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.connect_seconds, self.stall_seconds) <= 0:
            raise ValueError(f"max_bytes is {self.max_bytes}, connect_seconds {self.connect_seconds}, stall_seconds {self.stall_seconds}; "
                             "all must be above 0.")
        for host, token in self.tokens.items():
            if not re.fullmatch(r"[a-z0-9_.-]+", host):
                raise ValueError(f"'{host}' has a token and is no host; write huggingface.co, in lower case, without https:// and port.")
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(f"the token for {host} holds a space, a line break or a letter that no token has. Copy it again.")
        check_url(self.hub, self.addresses)

    def tokens_for(self, url: str) -> Mapping[str, str]:
        """The tokens that a request for `url` may show: none where it is not encrypted, except to the hub, which the owner chose."""
        asked = URL(url)
        return self.tokens if asked.scheme == "https" or asked.origin() == URL(self.hub).origin() else {}

    @property
    def addresses(self) -> AddressRules:
        return AddressRules(self.allowed_hosts, self.redirect_hosts, self.networks, self.plain_http)
