"""The sound of a video file, put together so that each sample is heard as long after the first picture as in the file."""

import contextlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import torch

from ..frames import Audio

JITTER = 0.05  # seconds: what times of packets are rounded by is no gap in the sound


class Recording:
    """Packets of one sound stream, decoded as they come; those that are damaged are left out."""

    def __init__(self) -> None:
        self.parts: list[tuple[float, np.ndarray]] = []  # seconds, (channels, samples)
        self.rate = 0
        self.layout: av.AudioLayout | None = None
        self.resampler: av.AudioResampler | None = None
        self.setup: tuple[str, str, int] | None = None

    def take(self, packet: "av.Packet[Any]") -> None:
        with contextlib.suppress(av.error.FFmpegError):
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    self._take(frame)

    def _take(self, frame: av.AudioFrame) -> None:
        self.rate, self.layout = self.rate or frame.sample_rate, self.layout or frame.layout
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.resampler is None or setup != self.setup:
            self.setup, self.resampler = setup, av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        self.parts += [(self._begin(part), part.to_ndarray()) for part in self.resampler.resample(frame)]

    def _begin(self, part: av.AudioFrame) -> float:
        """When a part starts; right after the one before it where the file does not say."""
        if part.time is not None:
            return float(part.time)
        before, samples = self.parts[-1] if self.parts else (0.0, np.empty((1, 0)))
        return before + samples.shape[1] / self.rate

    def audio(self, first_picture: float, duration: float) -> Audio | None:
        """From the first picture on (its time in seconds), with silence where nothing sounds; None without any sound.

        What begins after the pictures end, `duration` seconds later, is left out.
        """
        parts = [(round((begin - first_picture) * self.rate), samples) for begin, samples in self.parts if begin - first_picture < duration]
        pieces = list(_placed(parts, round(JITTER * self.rate)))
        return Audio(torch.from_numpy(np.concatenate(pieces, axis=1)), self.rate) if pieces else None


def _placed(parts: list[tuple[int, np.ndarray]], jitter: int) -> Iterator[np.ndarray]:
    """Samples (channels, n) one after the other, of parts that begin at given places; what lies before place 0 is cut."""
    position = 0
    for begin, samples in parts:
        if position == 0 and begin < 0:
            samples = samples[:, -begin:]
        if begin - position > (jitter if position else 0):
            yield np.zeros((len(samples), begin - position), samples.dtype)
            position = begin
        position += samples.shape[1]
        if samples.shape[1]:
            yield samples
