"""Play a stream backwards in bounded memory: its levels go to a file without loss and come back from the end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..frames import CHUNK


def backwards(clip: Iterator[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """Chunks (T, H, W, 3) of `clip`, last frame first. OSError when `folder` has no room.

    The file has no name on POSIX and is deleted with its handle on Windows, so that nothing stays behind, not even after a crash.
    """
    with tempfile.TemporaryFile(dir=folder, prefix="wan22-reverse-") as spool:
        shape, dtype, count = (0,), np.dtype(np.uint8), 0
        for chunk in clip:
            shape, dtype = chunk.shape[1:], chunk.dtype
            spool.write(np.ascontiguousarray(chunk).data)
            count += len(chunk)
        frame_bytes = int(np.prod(shape)) * dtype.itemsize
        for end in range(count, 0, -CHUNK):
            begin = max(0, end - CHUNK)
            spool.seek(begin * frame_bytes)
            yield np.frombuffer(spool.read((end - begin) * frame_bytes), dtype).reshape(end - begin, *shape)[::-1]
