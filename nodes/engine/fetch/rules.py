"""What the server's owner allows of downloads and webhooks, and the two ways in which a download ends badly."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from yarl import URL

from .addresses import AddressRules, check_url

HUB = "https://huggingface.co"
HOSTS = ("huggingface.co", "civitai.com", "civitai.red", "*.fal.media")
"""Civitai shows all its models only under its second name; what was trained at fal lies at v3.fal.media, v3b.fal.media and the like."""
REDIRECT_HOSTS = ("*.hf.co", "*.huggingface.co", "*.civitai.com", "*.r2.cloudflarestorage.com")
"""Where the hosts above keep their files. Hugging Face's guide "Downloading behind a proxy or firewall" names these wildcards; Civitai's links lead
to b2.civitai.com or to civitai-delivery-worker-prod.<account>.r2.cloudflarestorage.com. Anyone can rent storage there: no request may name them."""


class DownloadRefused(ValueError):
    """The request must change: its path is wrong or not allowed here, or what it names is no LoRA."""


class DownloadFailed(OSError):
    """The network, the other server or the disk failed; the same request may succeed later."""


class Rules(BaseModel):
    """What the owner may write into the settings: unknown names are refused, and no error repeats a value, which may be secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DownloadRules(Rules):
    """Whether LoRAs are downloaded at all, from where, how much and how patiently. ValueError for settings that make no sense.

    `connect_seconds` is the limit until a server is connected, `stall_seconds` the longest wait for its next bytes. `tokens` holds one per host,
    which never appears in a text. `networks` and `plain_http` open what is closed otherwise, see AddressRules. `hub` may name a mirror.
    """

    enabled: bool = False
    allowed_hosts: tuple[str, ...] = HOSTS
    redirect_hosts: tuple[str, ...] = REDIRECT_HOSTS
    max_bytes: int = Field(default=4 * 2**30, gt=0)
    connect_seconds: float = Field(default=15.0, gt=0)
    stall_seconds: float = Field(default=60.0, gt=0)
    tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    networks: tuple[str, ...] = ()
    plain_http: bool = False
    hub: str = HUB

    @model_validator(mode="after")
    def _check(self) -> "DownloadRules":
        for host, token in self.tokens.items():
            if not re.fullmatch(r"[a-z0-9_.-]+", host):
                raise ValueError(f"'{host}' has a token and is no host; write huggingface.co, in lower case, without https:// and port.")
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(f"the token for {host} holds a space, a line break or a letter that no token has. Copy it again.")
        check_url(self.hub, self.addresses)
        return self

    def tokens_for(self, url: str) -> Mapping[str, str]:
        """The tokens that a request for `url` may show: none where it is not encrypted, except to the hub, which the owner chose."""
        asked = URL(url)
        return self.tokens if asked.scheme == "https" or asked.origin() == URL(self.hub).origin() else {}

    @property
    def addresses(self) -> AddressRules:
        return AddressRules(self.allowed_hosts, self.redirect_hosts, self.networks, self.plain_http, "downloads", "allowed_hosts")


class UploadRules(Rules):
    """Whether LoRAs may be sent to this server, and how large one may be in bytes."""

    enabled: bool = True
    max_bytes: int = Field(default=4 * 2**30, gt=0)


class WebhookRules(Rules):
    """Where webhooks may be (`hosts` None: every public one), seconds per attempt and for all of them, and the pauses between attempts: ten within
    two hours, as the hosted service."""

    hosts: tuple[str, ...] | None = None
    networks: tuple[str, ...] = ()
    plain_http: bool = False
    seconds: float = Field(default=15.0, gt=0)
    total_seconds: float = Field(default=7200.0, gt=0)
    pauses: tuple[Annotated[float, Field(ge=0)], ...] = (1.0, 4.0, 15.0, 60.0, 180.0, 600.0, 1200.0, 1800.0, 3000.0)

    @model_validator(mode="after")
    def _check(self) -> "WebhookRules":
        _ = self.addresses  # which refuses a host or network that cannot be understood
        return self

    @property
    def addresses(self) -> AddressRules:
        return AddressRules(self.hosts, networks=self.networks, plain_http=self.plain_http, settings="webhooks")
