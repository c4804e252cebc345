"""Without keys only programs of this machine are answered: no other machine, no proxy, no web page of somebody else."""

import pytest
from wan22.api.trust import stranger

HOST = {"Host": "127.0.0.1:8188"}


def is_local(remote: str | None, headers: dict[str, str]) -> bool:
    return not stranger(remote, headers)


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8188", "localhost", "LOCALHOST:8188", "[::1]:8188", "comfy.localhost:8188"])
def test_a_program_of_this_machine_is_local(remote: str, host: str) -> None:
    assert is_local(remote, {"Host": host})


@pytest.mark.parametrize("remote", ["192.168.0.2", "10.0.0.1", "8.8.8.8", "::2", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0", "", None, "localhost"])
def test_another_machine_is_not(remote: str | None) -> None:
    assert not is_local(remote, HOST)


@pytest.mark.parametrize("name", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Host", "CF-Connecting-IP",
                                  "True-Client-IP"])
def test_a_proxy_on_this_machine_is_not(name: str) -> None:
    assert not is_local("127.0.0.1", {**HOST, name: "1.2.3.4"})


@pytest.mark.parametrize("host", ["", "evil.example:8188", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "[::1", "10.0.0.1"])
def test_a_name_that_another_page_made_lead_here_is_not(host: str) -> None:
    assert not is_local("127.0.0.1", {"Host": host})
    assert not is_local("127.0.0.1", {**HOST, "Origin": f"https://{host}"})


@pytest.mark.parametrize("origin", ["null", "", "file://", "https://[", "http://8.8.8.8"])
def test_a_page_without_a_name_is_not(origin: str) -> None:
    assert not is_local("127.0.0.1", {**HOST, "Origin": origin})


def test_a_page_of_this_machine_is() -> None:
    assert is_local("127.0.0.1", {**HOST, "Origin": "http://localhost:3000"})


def test_without_a_host_nobody_is() -> None:
    assert not is_local("127.0.0.1", {})


@pytest.mark.parametrize(("remote", "headers", "word"), [
    ("172.17.0.1", HOST, "172.17.0.1"), (None, HOST, "nowhere"), ("127.0.0.1", {**HOST, "X-Forwarded-For": "1.2.3.4"}, "X-Forwarded-For"),
    ("127.0.0.1", {"Host": "comfy.example"}, "comfy.example"), ("127.0.0.1", {**HOST, "Origin": "https://page.example"}, "https://page.example")])
def test_what_makes_it_a_stranger_is_named(remote: str | None, headers: dict[str, str], word: str) -> None:
    assert word in stranger(remote, headers)
