"""A safetensors file is recognised by its first bytes, however they are cut."""

import pytest

from engine.fetch.rules import DownloadRefused
from engine.fetch.safetensors_header import MAX_HEADER, HeaderCheck
from file_host import LORA


def headed(header: bytes, body: int = 0) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"\0" * body


@pytest.mark.parametrize("header", [
    b"{", b"[1]", b'{"x": 1}', b'{"x": {}}', b'{"x": {"data_offsets": [0]}}', b'{"x": {"data_offsets": [0, true]}}',
    b'{"x": {"data_offsets": [0, 1.0]}}',
    b'{"x": {"data_offsets": [4, 8]}}', b'{"x": {"data_offsets": [0, -1]}}', b'{"x": {"data_offsets": [0, 8]}, "y": {"data_offsets": [4, 12]}}',
    b"{}", b"{" * 200_000,
    b'{"__metadata__": {}}', b'{"x": {"data_offsets": [-8, 0]}}', b"{\xff}"])
def test_headers_that_make_no_sense_are_refused(header: bytes):
    with pytest.raises(DownloadRefused):
        HeaderCheck().add(headed(header))


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER + 1, 2**63])
def test_lengths_no_header_has_are_refused(length: int):
    with pytest.raises(DownloadRefused):
        HeaderCheck().add(length.to_bytes(8, "little") + b"{}")


def test_a_header_of_the_largest_size_is_taken_and_no_larger_one_is_kept():
    begin = b'{"x": {"data_offsets": [0, 8]}'
    check = HeaderCheck()
    check.add(headed(begin + b" " * (8 * 2**20 - len(begin) - 1) + b"}"))
    assert check.file_bytes == 8 + 8 * 2**20 + 8
    with pytest.raises(DownloadRefused):
        HeaderCheck().add((8 * 2**20 + 1).to_bytes(8, "little") + begin)


def test_a_header_is_understood_however_it_is_cut():
    check = HeaderCheck()
    for index in range(400):
        check.add(LORA[index:index + 1])
    assert check.file_bytes == len(LORA)
