"""One frame as one picture file: WebP, PNG or JPEG, several of them at a time.

The numbers were chosen by measurement on real clips (`python dev.py bench ways_out --table`), so that a higher quality never has the lower SSIM,
`fast` takes the least time and `small` makes the smallest files; of JPEGs only from quality high on, below it progressive ones are 1 to 4 % larger.
"""

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from ..formats import QUALITIES, VideoFormat
from ..write import QUEUED_CHUNKS, Levels

Encode = Callable[[np.ndarray], bytes]  # of one frame (H, W, 3)
MOST_THREADS = 4
WEBP_QUALITIES, WEBP_METHODS = (50, 75, 90, 100), {"fast": 0, "balanced": 2, "small": 6}
JPEG_QUALITIES = ({"quality": 75}, {"quality": 88}, {"quality": 95}, {"quality": 100, "subsampling": 0})
JPEG_EFFORTS: Mapping[str, Mapping[str, bool]] = {"fast": {}, "balanced": {"optimize": True}, "small": {"optimize": True, "progressive": True}}
PNG_EFFORTS = {"fast": {"compression_level": "1", "pred": "sub"}, "balanced": {"compression_level": "6", "pred": "paeth"},
               "small": {"compression_level": "9", "pred": "mixed"}}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoder(video: VideoFormat) -> Encode:
    """What makes one picture file of a frame of levels, as `VideoFormat.level_depth` has them."""
    quality = QUALITIES.index(video.quality)
    if video.container == "png":
        return lambda picture: _png(picture, PNG_EFFORTS[video.write_mode])
    if video.container == "jpg":
        return lambda picture: _by_pillow(picture, "JPEG", **JPEG_QUALITIES[quality], **JPEG_EFFORTS[video.write_mode])
    return lambda picture: _by_pillow(picture, "WEBP", quality=WEBP_QUALITIES[quality], method=WEBP_METHODS[video.write_mode])


def encoded(clip: Iterator[Levels], encode: Encode) -> Iterator[bytes]:
    """Each frame's picture in the order of the frames, made in a few threads, at most QUEUED_CHUNKS chunks behind the clip."""
    waiting: deque[list[Future[bytes]]] = deque()
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="wan22-encode") as threads:
        for chunk in clip:
            if len(waiting) == QUEUED_CHUNKS:
                yield from (picture.result() for picture in waiting.popleft())
            waiting.append([threads.submit(encode, picture) for picture in chunk])
        while waiting:
            yield from (picture.result() for picture in waiting.popleft())


def _by_pillow(picture: np.ndarray, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, kind, **options)
    return content.getvalue()


def _png(picture: np.ndarray, options: Mapping[str, str]) -> bytes:
    """Of 8 or 16 bits per colour; Pillow has no RGB of 16."""
    deep = picture.dtype == np.uint16
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = picture.shape[:2]
    context.pix_fmt, context.time_base, context.options = "rgb48be" if deep else "rgb24", Fraction(1), dict(options)
    frame = av.VideoFrame.from_ndarray(_full_range(picture) if deep else np.ascontiguousarray(picture), format=context.pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _full_range(picture: np.ndarray) -> np.ndarray:
    """Levels whose white is 255 * 256 as levels whose white is 65535."""
    return ((picture.astype(np.uint32) * 257 + 128) >> 8).astype(np.uint16)


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG with a text chunk per name, before its pixels, as ComfyUI reads them: tEXt, or iTXt for what is not Latin-1."""
    header_end = len(PNG_SIGNATURE) + 25
    return png[:header_end] + b"".join(_text_chunk(name, text) for name, text in texts.items()) + png[header_end:]


def without_texts(png: bytes) -> bytes:
    """A PNG as it was before `with_texts`."""
    kept, position = PNG_SIGNATURE, len(PNG_SIGNATURE)
    while position < len(png):
        end = position + 12 + int(struct.unpack(">I", png[position : position + 4])[0])
        if png[position + 4 : position + 8] not in (b"tEXt", b"iTXt"):
            kept += png[position:end]
        position = end
    return kept


def _text_chunk(name: str, text: str) -> bytes:
    keyword = name.encode("latin-1", "replace")[:79] + b"\0"
    try:
        kind, content = b"tEXt", keyword + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, content = b"iTXt", keyword + b"\0\0\0\0" + text.encode()
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
