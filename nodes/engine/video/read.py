"""Read a video file as a stream of frames."""

import io
from collections.abc import Iterator

import av
import numpy as np
import torch

from ..frames import CHUNK, Audio

Source = str | io.BytesIO


def frames(source: Source) -> Iterator[torch.Tensor]:
    """Chunks (T, H, W, 3) of the first video stream, in the order they are shown."""
    waiting: list[np.ndarray] = []
    with av.open(_rewound(source), "r") as container:
        for frame in container.decode(video=0):
            waiting.append(frame.to_ndarray(format="rgb24"))
            if len(waiting) == CHUNK:
                yield _chunk(waiting)
                waiting = []
    if waiting:
        yield _chunk(waiting)


def count(source: Source) -> int:
    """Number of frames: what the header says or, for WebM and Matroska, which say nothing, the packets counted without decoding."""
    with av.open(_rewound(source), "r") as container:
        stream = container.streams.video[0]
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def audio(source: Source) -> Audio | None:
    """The last audio stream that can be decoded, as core takes it, in floats; None where the file has no such sound."""
    with av.open(_rewound(source), "r") as container:
        decodable = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not decodable:
            return None
        stream = decodable[-1]
        to_float = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in (*container.decode(stream), None) for part in to_float.resample(frame)]
        return Audio(torch.from_numpy(np.concatenate(parts, axis=1)), stream.rate) if parts else None


def tags(source: Source) -> dict[str, str]:
    """What the file says of itself by name: "comment", the workflow and the like."""
    with av.open(_rewound(source), "r") as container:
        return dict(container.metadata)


def is_plain(source: Source) -> bool:
    """Eight bit, upright and without alpha: what `frames` reads as ComfyUI does, within two levels."""
    with av.open(_rewound(source), "r") as container:
        first = next(container.decode(video=0), None)
        if first is None:
            raise ValueError(f"{source} holds no video frames; choose another file.")
        components = first.format.components
        return len(components) <= 3 and all(component.bits <= 8 for component in components) and getattr(first, "rotation", 0) == 0


def _rewound(source: Source) -> Source:
    """A buffer of its own per reader: streams of one source may be pulled at the same time."""
    return io.BytesIO(source.getbuffer()) if isinstance(source, io.BytesIO) else source


def _chunk(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)) / 255.0
