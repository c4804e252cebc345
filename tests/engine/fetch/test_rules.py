"""What an owner may allow, and to whom a token is shown."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.fetch.addresses import AddressRefused, CheckedResolver, check_url
from engine.fetch.download import Downloader
from engine.fetch.rules import HOSTS, DownloadRefused, DownloadRules, WebhookRules
from engine.fetch.sources import WebFile
from file_host import SECRET, SHA, Host, fetch, rules, run


def test_downloads_are_off_by_default_and_then_nobody_is_asked(tmp_path: Path):
    host = Host()
    with pytest.raises(DownloadRefused, match="switched off"):
        fetch(host, tmp_path / "none", enabled=False)
    assert not host.requests and not (tmp_path / "none").exists() and not DownloadRules().enabled


@pytest.mark.parametrize("url", ["https://example.com/x.safetensors", "http://huggingface.co/a/b/resolve/main/x", "https://huggingface.co:8443/x",
    "file:///etc/passwd",
                                 "https://bucket.account.r2.cloudflarestorage.com/x", "https://u:p@civitai.com/x", "https://127.0.0.1/x",
                                 "https://cdn.hf.co/x"])
def test_only_the_hosts_of_the_rules_are_asked(url: str, tmp_path: Path):
    with pytest.raises(DownloadRefused):
        asyncio.run(Downloader(tmp_path, DownloadRules(enabled=True)).fetch(WebFile(url), print))


def test_the_token_goes_to_its_host_and_into_no_text(tmp_path: Path):
    host = Host(headers={"X-Linked-Etag": SHA})
    lines: list[str] = []
    seen = []

    async def look(request: web.Request) -> web.Response | None:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=302, headers={"Location": f"/cdn?sig={SECRET}"}) if request.path != "/cdn" else None

    host.handle = look
    fetch(host, tmp_path, f"x.safetensors?token={SECRET}", lines, tokens={"127.0.0.1": SECRET})
    fetch(host, tmp_path, "other.safetensors", lines, tokens={"huggingface.co": SECRET})
    assert seen == [f"Bearer {SECRET}"] * 2 + [None] * 2 and SECRET not in " ".join(lines)
    assert SECRET not in "".join(path.read_text() for path in tmp_path.glob("*.json")) and SECRET not in repr(rules(host, tokens={"h": SECRET}))
    assert SECRET not in repr(host.file(f"x?token={SECRET}"))


def test_over_http_a_token_goes_to_the_hub_alone(tmp_path: Path):
    """Whatever a request makes this server ask for unencrypted, a token for a public host is not in it."""
    host, seen = Host(), []

    async def look(request: web.Request) -> web.Response | None:
        seen.append(request.headers.get("Authorization"))
        return None

    async def use() -> Path:
        allowed = rules(host, allowed_hosts=(f"localhost:{host.port}", "huggingface.co"), networks=("127.0.0.0/8", "::1/128"),
                        tokens={"localhost": SECRET}, hub="https://huggingface.co")
        return await Downloader(tmp_path, allowed).fetch(WebFile(host.file("x").url.replace("127.0.0.1", "localhost")), print)

    host.handle = look
    run(host, use)
    assert seen == [None]


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"stall_seconds": -1.0}, {"tokens": {"h": "a\nb"}}, {"hub": "http://huggingface.co"},
    {"hub": "https://mirror.example"},
                                     {"networks": ("x",)}, {"allowed_hosts": ("https://x",)}])
def test_rules_that_mean_nothing_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError):
        DownloadRules(**options)


@pytest.mark.parametrize("url", ["https://v3.fal.media/files/panda/style.safetensors", "https://v3b.fal.media/files/b/x/style.safetensors"])
def test_what_was_trained_at_the_hosted_service_may_be_fetched(url: str, tmp_path: Path):
    Downloader(tmp_path, DownloadRules(enabled=True)).check(WebFile(url))


OPENED: list[tuple[str, str, dict[str, Any]]] = [
    ("https://example.com/x", "allowed_hosts", {"allowed_hosts": (*HOSTS, "example.com")}),
    ("https://huggingface.co:8443/x", "allowed_hosts", {"allowed_hosts": (*HOSTS, "huggingface.co:8443")}),
    ("http://huggingface.co/x", "plain_http", {"plain_http": True}),
    ("https://192.168.1.5/x", "networks", {"networks": ("192.168.1.0/24",), "allowed_hosts": (*HOSTS, "192.168.1.5")})]


@pytest.mark.parametrize(("url", "setting", "opened"), OPENED)
def test_a_refusal_names_the_setting_that_allows_what_was_refused(tmp_path: Path, url: str, setting: str, opened: dict[str, Any]):
    with pytest.raises(DownloadRefused, match=f"downloads.{setting}"):
        Downloader(tmp_path, DownloadRules(enabled=True)).check(WebFile(url))
    with pytest.raises(DownloadRefused, match="downloads.enabled"):
        Downloader(tmp_path, DownloadRules(**opened)).check(WebFile(url))
    Downloader(tmp_path, DownloadRules(enabled=True, **opened)).check(WebFile(url))


@pytest.mark.parametrize(("url", "setting", "opened"), [
    ("https://example.com:8443/x", "hosts", {"hosts": ("example.com:8443",)}), ("http://example.com/x", "plain_http", {"plain_http": True}),
    ("https://192.168.1.5/x", "networks", {"networks": ("192.168.1.0/24",)})])
def test_a_webhooks_refusal_does_so_too(url: str, setting: str, opened: dict[str, Any]):
    with pytest.raises(AddressRefused, match=f"webhooks.{setting}"):
        check_url(url, WebhookRules().addresses)
    check_url(url, WebhookRules(**opened).addresses)


def test_a_name_that_leads_to_a_private_address_is_refused_by_the_networks_that_would_allow_it():
    async def resolve() -> None:
        await CheckedResolver(DownloadRules().addresses).resolve("localhost")

    with pytest.raises(AddressRefused, match="downloads.networks"):
        asyncio.run(resolve())


def test_a_redirect_and_a_size_name_theirs(tmp_path: Path):
    host = Host()

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "https://example.com/x"})

    with pytest.raises(DownloadRefused, match="downloads.max_bytes"):
        fetch(host, tmp_path, max_bytes=1000)
    host.handle = away
    with pytest.raises(DownloadRefused, match="downloads.redirect_hosts"):
        fetch(host, tmp_path)
