"""Animated WebP, put together from stills on the disk: libwebp's own animations hold the whole file in memory and are no smaller for real clips.

Source: the WebP container specification (RIFF chunks VP8X, ANIM, ANMF, EXIF).
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ...frames import FrameStream
from ..formats import VideoFormat, check_rate
from ..write import Levels, tag
from .stills import encoded, encoder

MOST_PIXELS = 16383  # of a side
ANIMATED, WITH_EXIF = 0x02, 0x08
NOT_BLENDED = 0x02  # each frame replaces the one before it
FOREVER = 0
LONGEST = 0xFFFFFF  # milliseconds of a frame
MAKE, MODEL, ASCII = 0x010F, 0x0110, 2  # of EXIF
FLAGS_AT = 20  # of the file, in VP8X


def write(path: Path, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, tags: Mapping[str, object]) -> int:
    """Write frames of 8 bits that loop for ever; returns how many. `tags` become EXIF, as ComfyUI reads them from a WebP."""
    check_rate(video.codec, stream.rate, video.container)
    if max(stream.width, stream.height) > MOST_PIXELS:
        raise ValueError(f"the picture is {stream.width}x{stream.height}, and webp takes {MOST_PIXELS} pixels a side. "
                         "Resize it before it is saved, or choose the container png.")
    sides = _24_bits(stream.width - 1) + _24_bits(stream.height - 1)
    with path.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBP")
        _write_chunk(file, b"VP8X", struct.pack("<I", ANIMATED | (WITH_EXIF if tags else 0)) + sides)
        _write_chunk(file, b"ANIM", struct.pack("<IH", 0, FOREVER))
        count = 0
        for still in encoded(clip, encoder(video)):
            duration = _24_bits(min(LONGEST, _milliseconds(count + 1, stream) - _milliseconds(count, stream)))
            pixels = b"".join(head + content for head, content in _chunks(still) if head[:4] in (b"ALPH", b"VP8 ", b"VP8L"))
            _write_chunk(file, b"ANMF", _24_bits(0) * 2 + sides + duration + bytes([NOT_BLENDED]) + pixels)
            count += 1
        if tags:
            _write_chunk(file, b"EXIF", exif(tags))
        _close(file)
    return count


def copy_without_tags(source: Path, target: Path) -> None:
    """The same animation without EXIF, which `write` has put at the end."""
    with source.open("rb") as read, target.open("wb") as file:
        file.write(read.read(12))
        while head := read.read(8):
            content = read.read(_even(struct.unpack("<I", head[4:])[0]))
            if head[:4] != b"EXIF":
                file.write(head + content)
        file.seek(FLAGS_AT)
        file.write(bytes([ANIMATED]))
        file.seek(0, 2)
        _close(file)


def exif(tags: Mapping[str, object]) -> bytes:
    """As ComfyUI has it: `name:text` with the prompt as the camera's model and the workflow as its make, others below."""
    first = [name for name in ("prompt", "workflow") if name in tags]
    named = {MODEL - ("prompt" not in tags) - place: name for place, name in enumerate([*first, *(name for name in tags if name not in first)])}
    entries, texts, place = b"", b"", 8 + 2 + 12 * len(named) + 4
    for number in sorted(named):
        text = f"{named[number]}:{tag(tags[named[number]])}".encode() + b"\0"
        text += b"\0" * max(0, 5 - len(text))  # four bytes would stand in the entry itself
        entries += struct.pack("<HHII", number, ASCII, len(text), place + len(texts))
        texts += text
    return b"II*\0" + struct.pack("<IH", 8, len(named)) + entries + struct.pack("<I", 0) + texts


def _milliseconds(frame: int, stream: FrameStream) -> int:
    """When a frame begins: rounded there, so that no error adds up."""
    return round(1000 * frame / stream.rate)


def _chunks(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Head and padded content of each chunk of a still."""
    position = 12
    while position < len(webp):
        size = _even(struct.unpack("<I", webp[position + 4 : position + 8])[0])
        yield webp[position : position + 8], webp[position + 8 : position + 8 + size]
        position += 8 + size


def _write_chunk(file: BinaryIO, name: bytes, content: bytes) -> None:
    file.write(name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2))


def _close(file: BinaryIO) -> None:
    """Write the length of the file into its head."""
    size = file.tell() - 8
    if size >= 2**32:
        raise ValueError(f"the webp has {size / 2**30:.1f} GB, and the format ends at 4. Choose a lower video_quality or the container mp4.")
    file.seek(4)
    file.write(struct.pack("<I", size))


def _even(size: int) -> int:
    return size + size % 2


def _24_bits(value: int) -> bytes:
    return struct.pack("<I", value)[:3]
