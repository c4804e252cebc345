"""Addresses a request may not lead to, in every spelling; redirects checked hop by hop; tokens for their host alone."""

import asyncio
import ipaddress
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.fetch.addresses import AddressRefused, AddressRules, check_url, is_public, shown
from engine.fetch.redirects import checked_session, followed
from web_server import served

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ANY = AddressRules()
LOOPBACK = ("127.0.0.1/32",)
PATIENT = ClientTimeout(total=60)


class Names(AbstractResolver):
    """Answers from a table; a name's last answer stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): numbers for name, numbers in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        numbers = self.answers[host]
        addresses = numbers.pop(0) if len(numbers) > 1 else numbers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                              proto=0, flags=socket.AI_NUMERICHOST) for address in addresses]

    async def close(self) -> None:
        pass


def reach(url: str, rules: AddressRules, resolver: AbstractResolver | None = None, tokens: dict[str, str] | None = None) -> str:
    async def run() -> str:
        async with (checked_session(rules, PATIENT, resolver) as session,
                    followed(session, url, rules, {}, tokens or {}) as answer):
            return await answer.response.text()
    return asyncio.run(run())


def with_server(handler: Handler, use: Callable[[int], Awaitable[None]]) -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        async with served(app) as port:
            await use(port)
    asyncio.run(run())


async def get(url: str, rules: AddressRules, resolver: AbstractResolver | None = None, tokens: dict[str, str] | None = None) -> str:
    async with checked_session(rules, PATIENT, resolver) as session, followed(session, url, rules, {}, tokens or {}) as answer:
        return await answer.response.text()


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "00", "0x7f.1", "0x7f000001", "0X7F.0.0.1", "2130706433", "017700000001", "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.", "127.0.0.0x1", "0x", "10.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.170.2",
    "100.100.100.200", "100.64.0.1", "192.0.0.192", "168.63.129.16", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "198.18.0.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[fe80::1]",
    "[fe80::1%25eth0]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff0e::1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]",
    "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[3fff::1]", "[v1.a]", "①②⑦.⓪.⓪.①", "127。0。0。1",
    "１２７.0.0.1",
    "loc\u00adalhost", "a..b", ".local", "", "%31%32%37.0.0.1", "localhost%00.example.com", "1.2.3.4.5", "example.256"])
def test_no_spelling_of_a_private_address_is_taken(host: str):
    with pytest.raises(AddressRefused):
        check_url(f"https://{host}/file", ANY)


@pytest.mark.parametrize("url", [
    "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/", "example.com", "", "https:",
    "https://",
    "https:///example.com", "https:/example.com", "https://user@example.com/", "https://user:pass@example.com/", "https://@example.com/",
    "https://:@example.com/",
    "https://127.0.0.1#@example.com/", "https://127.0.0.1?@example.com/", "https://example.com@127.0.0.1/", "https://example.com:22/",
    "https://example.com:0/",
    "https://example.com:80/", "https://example.com:99999/", "https://example.com:x/", "https://example.com\\@127.0.0.1/", "https:\\\\example.com/",
    "https://exa mple.com/", " https://example.com/", "https://example.com/\r\nHost: x", "https://example.com/\0", "https://example.com/\t",
    "https://[::1/",
    "https://example.com/" + "a" * 9000, "javascript:alert(1)", "data:text/plain,x", "https://\ud800.com/", "https://example.com/\ud800"])
def test_no_other_kind_of_address_is_taken(url: str):
    with pytest.raises(AddressRefused):
        check_url(url, ANY)


@pytest.mark.parametrize("url", [
    "https://example.com", "https://EXAMPLE.com/a", "https://example.com:443/a?b=c#d", "https://xn--bcher-kva.example/", "https://8.8.8.8/",
    "https://1.1.1.1:443/x",
    "https://[2606:4700:4700::1111]/", "https://[::ffff:8.8.8.8]/", "https://[64:ff9b::808:808]/", "https://a_b.example.com/",
    "https://example.com/\u00e9"])
def test_public_addresses_are_taken(url: str):
    assert check_url(url, ANY).raw_host


def test_a_signed_address_stays_as_it_is():
    url = "https://cdn.hf.co/a%2Fb?response-content-disposition=inline%3B+filename*%3DUTF-8%27%27x&Signature=A~b-c_%2B/=&Key=1"
    assert str(check_url(url, ANY)) == url


@pytest.mark.parametrize(("listed", "url", "taken"), [
    ("huggingface.co", "https://huggingface.co/x", True), ("huggingface.co", "https://HuggingFace.co/x", True),
    ("huggingface.co", "https://evil.huggingface.co/", False),
    ("huggingface.co", "https://huggingface.co.evil.com/", False), ("huggingface.co", "https://evilhuggingface.co/", False),
    ("huggingface.co", "https://huggingface.co./", False), ("huggingface.co", "https://huggingface.co:8443/", False),
    ("huggingface.co:8443", "https://huggingface.co:8443/", True), ("huggingface.co:8443", "https://huggingface.co/", False),
    ("*.hf.co", "https://us.aws.cdn.hf.co/x", True), ("*.hf.co", "https://hf.co/", False), ("*.hf.co", "https://evilhf.co/", False),
    ("8.8.8.8", "https://8.8.8.8/", True), ("8.8.8.8", "https://8.8.4.4/", False), ("127.0.0.1", "https://127.0.0.1/", False),
    ("[2606:4700::1]:8443", "https://[2606:4700::1]:8443/", True)])
def test_listed_hosts_and_no_others(listed: str, url: str, taken: bool):
    rules = AddressRules((listed,))
    if taken:
        check_url(url, rules)
    else:
        with pytest.raises(AddressRefused):
            check_url(url, rules)


def test_storage_that_anyone_can_rent_is_reached_by_redirects_only():
    rules = AddressRules(("civitai.com",), redirect_hosts=("*.r2.cloudflarestorage.com",))
    url = "https://bucket.account.r2.cloudflarestorage.com/file"
    assert check_url(url, rules, redirected=True)
    with pytest.raises(AddressRefused, match="not among the hosts"):
        check_url(url, rules)


def test_networks_are_opened_one_by_one():
    rules = AddressRules(networks=("192.168.1.0/24",), plain_http=True)
    assert check_url("http://192.168.1.7:5000/hook", rules) and check_url("http://[::ffff:192.168.1.7]/hook", rules)
    for url in ("http://192.168.2.7/hook", "http://127.0.0.1/", "http://8.8.8.8:5000/"):
        with pytest.raises(AddressRefused):
            check_url(url, rules)


@pytest.mark.parametrize("rules", [{"hosts": ("https://huggingface.co",)}, {"hosts": ("*",)}, {"hosts": ("HF.co",)}, {"redirect_hosts": ("a b",)},
                                   {"networks": ("10.0.0.0/99",)}, {"networks": ("lan",)}])
def test_rules_that_mean_nothing_are_refused(rules: dict[str, Any]):
    with pytest.raises(ValueError):
        AddressRules(**rules)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "sub.localhost"])
def test_localhost_is_refused_by_what_it_resolves_to(host: str):
    with pytest.raises((AddressRefused, OSError)) as refused:
        reach(f"https://{host}/", ANY)
    assert host == "sub.localhost" or isinstance(refused.value, AddressRefused)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["93.184.215.14", "10.0.0.1"], ["10.0.0.1", "93.184.215.14"], ["::1"],
    ["fd00:ec2::254"],
                                       ["::ffff:169.254.169.254"], ["64:ff9b::a9fe:a9fe"], ["2002:a00:1::"], ["fe80::1%2"], ["0.0.0.0"],
                                       ["168.63.129.16"]])
def test_a_name_with_any_private_address_is_refused(addresses: list[str]):
    with pytest.raises(AddressRefused, match="metadata.google.internal leads to") as refused:
        reach("https://metadata.google.internal/", ANY, Names(metadata_google_internal=[addresses]))
    assert not any(address in str(refused.value) for address in addresses)


def test_a_name_that_turns_private_is_refused_when_it_does():
    names = Names(rebind_test=[["127.0.0.1"], ["10.0.0.1"]])
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        response = web.Response(text="hello")
        response.force_close()
        return response

    async def use(port: int) -> None:
        rules = AddressRules((f"rebind.test:{port}",), networks=LOOPBACK, plain_http=True)
        async with checked_session(rules, PATIENT, names) as session:
            async with followed(session, f"http://rebind.test:{port}/1", rules, {}, {}) as first:
                assert await first.response.text() == "hello"
            with pytest.raises(AddressRefused):
                async with followed(session, f"http://rebind.test:{port}/2", rules, {}, {}):
                    pass

    with_server(answer, use)
    assert seen == ["/1"] and names.asked == ["rebind.test"] * 2


@pytest.mark.parametrize("location", [
    "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "http://[::1]/", "http://2130706433/", "http://private.test/",
    "file:///etc/passwd",
    "//10.0.0.1/x", "http://user@public.test/", "http://other.test/", "", "http://[", "/\\evil", "http://public.test:22/", "http://localhost/"])
def test_a_redirect_is_checked_like_the_first_address(location: str):
    names = Names(public_test=[["127.0.0.1"]], private_test=[["10.0.0.1"]])

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async def use(port: int) -> None:
        rules = AddressRules((f"public.test:{port}", "private.test"), networks=LOOPBACK, plain_http=True)
        with pytest.raises(AddressRefused):
            await get(f"http://public.test:{port}/?token=secret", rules, names)

    with_server(away, use)


@pytest.mark.parametrize(("hops", "arrives"), [(5, True), (6, False)])
def test_five_redirects_are_followed(hops: int, arrives: bool):
    async def step(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        return web.Response(status=307, headers={"Location": f"/{left - 1}"}) if left else web.Response(text="there")

    async def use(port: int) -> None:
        rules = AddressRules((f"127.0.0.1:{port}",), networks=LOOPBACK, plain_http=True)
        if arrives:
            assert await get(f"http://127.0.0.1:{port}/{hops}", rules) == "there"
        else:
            with pytest.raises(AddressRefused, match="more than 5 times"):
                await get(f"http://127.0.0.1:{port}/{hops}", rules)

    with_server(step, use)


def test_a_token_goes_to_its_host_and_is_dropped_for_good_with_the_host():
    names = Names(hub_test=[["127.0.0.1"]], cdn_test=[["127.0.0.1"]])
    seen = []

    async def step(request: web.Request) -> web.Response:
        seen.append((request.host.split(":")[0], request.path, request.headers.get("Authorization")))
        port = request.host.split(":")[1]
        targets = {"/1": "/2", "/2": f"http://cdn.test:{port}/3", "/3": f"http://hub.test:{port}/4"}
        target = targets.get(request.path)
        return web.Response(status=302, headers={"Location": target}) if target else web.Response(text="end")

    async def use(port: int) -> None:
        rules = AddressRules((f"hub.test:{port}",), (f"cdn.test:{port}",), LOOPBACK, plain_http=True)
        assert await get(f"http://hub.test:{port}/1", rules, names, {"hub.test": "hf_secret", "cdn.test": "cdn_secret"}) == "end"

    with_server(step, use)
    assert seen == [("hub.test", "/1", "Bearer hf_secret"), ("hub.test", "/2", "Bearer hf_secret"), ("cdn.test", "/3", None),
        ("hub.test", "/4", None)]


@pytest.mark.parametrize("url", ["https://user:hunter2@h/?a", "ftp://h/?token=hunter2", "https://h:99999/#hunter2",
    "https://127.0.0.1/x?sig=hunter2", "user:hunter2@h",
                                 "https://a@b:hunter2@h/x", "https://h\\?hunter2"])
def test_messages_hold_no_secrets(url: str):
    assert "hunter2" not in shown(url)
    with pytest.raises(AddressRefused) as refused:
        check_url(url, ANY)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_messages_hold_nothing_that_breaks_a_log():
    assert shown("https://h/\r\n\x1b[31mERROR" + "x" * 500).isprintable() and len(shown("x" * 500)) == 200


def test_what_is_public_and_what_is_not():
    public = ["8.8.8.8", "1.1.1.1", "2606:4700::1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"]
    assert all(is_public(ipaddress.ip_address(address)) for address in public)
    assert not any(is_public(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1", "::", "2001::1", "100::1", "5f00::1"))
