"""Sound for a file: whatever a graph hands over is made fit for every encoder first, so that sound never costs the picture."""

from dataclasses import replace
from typing import Any

import av
import numpy as np
import torch

from ..frames import Audio

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
EVERY_CODEC_HAS_RATE = 48000
LEAST_RATE = 1000  # samples per second; fewer are held, since resampling would need more of them than there are
Targets = tuple[tuple[int, ...], ...]  # for each channel the channels that it goes to
LEFT, RIGHT, BOTH = (0,), (1,), (0, 1)
FOLDED: dict[int, Targets] = {  # in FFmpeg's order of channels, to stereo or to 5.1
    3: (LEFT, RIGHT, BOTH),
    4: (LEFT, RIGHT, BOTH, BOTH),
    5: (LEFT, RIGHT, BOTH, LEFT, RIGHT),
    7: ((0,), (1,), (2,), (3,), (4, 5), (4,), (5,)),
    8: ((0,), (1,), (2,), (3,), (4,), (5,), (4,), (5,)),
}


def playable(audio: Audio | None) -> tuple[Audio | None, list[str]]:
    """Sound of 1, 2 or 6 channels of finite samples in -1..1, or None where there is none to write; and what had to be changed, for the user."""
    if audio is None:
        return None, []
    channels, samples = audio.waveform.shape
    if channels == 0 or samples == 0:
        return None, [f"the sound has {channels} channels of {samples} samples; the video is written without sound."]
    if audio.sample_rate < 1:
        return None, [f"the sound has {audio.sample_rate} samples per second; the video is written without sound."]
    waveform, notes = _floats(audio.waveform), list[str]()
    finite = torch.isfinite(waveform)
    if not finite.all():
        notes.append(f"{int((~finite).sum())} of {finite.numel()} samples of the sound are NaN or infinite; they are written as silence.")
        waveform = torch.where(finite, waveform, 0)
    if channels not in LAYOUTS:
        waveform = _folded(waveform)
        notes.append(f"the sound has {channels} channels; it is written in {LAYOUTS[len(waveform)]}, which holds all of them.")
    return _held(replace(audio, waveform=waveform.clamp(-1, 1))), notes


def _floats(waveform: torch.Tensor) -> torch.Tensor:
    """Samples in float32 in main memory; whole numbers, as files hold them, become -1..1."""
    scale = 1 if waveform.is_floating_point() or waveform.dtype == torch.bool else torch.iinfo(waveform.dtype).max
    return waveform.detach().to("cpu", torch.float32) / scale


def _folded(waveform: torch.Tensor) -> torch.Tensor:
    """Any number of channels as stereo or 5.1, each of them heard, none louder than the loudest can be. Beyond 8 they go left and right in turn."""
    count = len(waveform)
    targets = FOLDED.get(count) or tuple(LEFT if channel % 2 == 0 else RIGHT for channel in range(count))
    matrix = torch.zeros(1 + max(max(each) for each in targets), count)
    for channel, to in enumerate(targets):
        matrix[list(to), channel] = len(to) ** -0.5
    return matrix / matrix.sum(dim=1).max() @ waveform


def _held(audio: Audio) -> Audio:
    times = -(-LEAST_RATE // audio.sample_rate)
    return replace(audio, waveform=audio.waveform.repeat_interleave(times, dim=1), sample_rate=audio.sample_rate * times)


class AudioTrack:
    """The sound of a file, as `playable` makes it, written along with the pictures and cut where they end."""

    def __init__(self, container: av.container.OutputContainer, audio: Audio, opus: bool) -> None:
        self.container, self.position = container, 0
        self.waveform, self.rate = audio.waveform.numpy(), audio.sample_rate
        self.layout = LAYOUTS[len(self.waveform)]
        codec = av.Codec("libopus" if opus else "aac", "w")
        rate = self.rate if self.rate in (codec.audio_rates or ()) else EVERY_CODEC_HAS_RATE  # PyAV resamples
        self.track: Any = container.add_stream(codec.name, rate=rate, layout=self.layout)

    def encode_until(self, seconds: float) -> None:
        """Encode what sounds before `seconds` and was not encoded yet."""
        end = min(round(seconds * self.rate), self.waveform.shape[1])
        if end > self.position:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(self.waveform[:, self.position : end]), format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts = self.rate, self.position
            self.container.mux(self.track.encode(frame))
            self.position = end

    def close(self) -> None:
        self.container.mux(self.track.encode(None))
