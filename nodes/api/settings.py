"""What the owner of the machine allows: one JSON file, checked whole when the server starts."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..engine.fetch.addresses import AddressRules
from ..engine.fetch.rules import HOSTS, HUB, REDIRECT_HOSTS, DownloadRules
from ..engine.fetch.webhooks import WebhookRules
from .job_store import KEPT

SHORTEST_KEY = 16  # characters
Hosts = tuple[str, ...]


class _Section(BaseModel):
    """Refuses names it does not know, and never repeats values, which may be secret, in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Models(_Section):
    """Files and folders below models/, by the blueprint's names; what is empty is found by its usual names."""

    high_noise_model: str = ""
    low_noise_model: str = ""
    text_encoder: str = ""
    vae: str = ""
    language_model: str = ""
    image_classifier: str = ""


class Downloads(_Section):
    """LoRAs from the web: off unless `enabled`. `tokens` are per host, `networks` are private ones that may be reached all the same."""

    enabled: bool = False
    allowed_hosts: Hosts = HOSTS
    redirect_hosts: Hosts = REDIRECT_HOSTS
    max_bytes: int = Field(default=4 * 2**30, gt=0)
    tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    networks: Hosts = ()
    plain_http: bool = False
    hub: str = HUB

    def rules(self) -> DownloadRules:
        return DownloadRules(**dict(self))


class Webhooks(_Section):
    """Where fal_webhook may point to: https and public, unless a private network is named or plain http allowed here."""

    networks: Hosts = ()
    plain_http: bool = False

    def rules(self) -> WebhookRules:
        return WebhookRules(AddressRules(networks=self.networks, plain_http=self.plain_http))


class Settings(_Section):
    """`keys`: without any, only this machine is answered; with some, nobody without one of them. `public_url` is where a reverse proxy puts the
    server; `max_waiting` counts the jobs of one key that are not complete. `kept_jobs` finished ones are remembered; the video of one that is
    forgotten is deleted unless `delete_videos` is false."""

    enabled: bool = False
    keys: tuple[Annotated[str, Field(min_length=SHORTEST_KEY, pattern=r"^[\x21-\x7e]+$")], ...] = Field((), repr=False)
    public_url: str = Field("", pattern=r"^(https?://[^\s?#]+)?$")
    max_waiting: int = Field(100, ge=1, le=10_000)
    kept_jobs: int = Field(KEPT, ge=1, le=100_000)
    delete_videos: bool = True
    models: Models = Models()
    downloads: Downloads = Downloads()
    webhooks: Webhooks = Webhooks()

    @classmethod
    def read(cls, text: str) -> "Settings":
        """ValueError that names each wrong entry, without its value."""
        try:
            settings = cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError("; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())) from None
        settings.downloads.rules(), settings.webhooks.rules()
        return settings

    def owner(self, authorization: str, local: bool) -> str | None:
        """Whose request it is: a fingerprint of its key, "" for a local one where no key is asked for, None for nobody's.

        `authorization` is the header of that name.
        """
        if not self.keys:
            return "" if local else None
        scheme, _, key = authorization.partition(" ")
        valid = _matches(key.strip(), self.keys) and scheme.lower() in ("key", "bearer")
        return hashlib.sha256(key.strip().encode()).hexdigest()[:16] if valid else None


def _matches(candidate: str, keys: Sequence[str]) -> bool:
    """Compared with every key in a time that tells nothing of how much was right."""
    return any([hmac.compare_digest(candidate.encode("utf-8", "surrogatepass"), key.encode()) for key in keys])
