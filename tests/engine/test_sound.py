"""Sound never costs the picture: whatever it is, every frame is written, and what can be heard is heard at its time."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from engine.frames import Audio, FrameStream, chunks, to_levels
from engine.video import read
from engine.video.formats import VideoFormat
from engine.video.sound import LAYOUTS, playable
from engine.video.write import write

FRAMES, RATE = 16, Fraction(8)  # two seconds
PICTURES = torch.linspace(0.1, 0.9, FRAMES)[:, None, None, None].expand(FRAMES, 32, 32, 3)
H264, VP9 = VideoFormat(write_mode="fast"), VideoFormat(write_mode="fast", codec="vp9")


def saved(audio: Audio | None, video: VideoFormat = H264) -> io.BytesIO:
    """A file of the pictures with that sound; all of them are in it."""
    stream, file = FrameStream(32, 32, FRAMES, RATE, lambda: chunks(PICTURES), audio), io.BytesIO()
    assert write(file, map(to_levels, stream.pull()), stream, video, {}) == FRAMES
    file.seek(0)
    assert sum(map(len, read.frames(file))) == FRAMES
    return file


def tone(channels: int, rate: int, seconds: float = 2.0) -> torch.Tensor:
    return (torch.sin(torch.arange(max(1, round(rate * seconds))) * 0.3 * torch.pi) * 0.5).expand(channels, -1)


@pytest.mark.parametrize("video", [H264, VP9], ids=["aac", "opus"])
@pytest.mark.parametrize("channels", [*range(1, 10), 16, 25])
def test_any_number_of_channels_is_heard(channels: int, video: VideoFormat) -> None:
    heard = read.description(saved(Audio(tone(channels, 48000), 48000), video)).audio
    assert heard is not None and len(heard.waveform) in LAYOUTS
    assert heard.waveform.abs().max() > 0.1


@pytest.mark.parametrize("video", [H264, VP9], ids=["aac", "opus"])
@pytest.mark.parametrize("rate", [1, 8, 50, 999, 4000, 7350, 11025, 37800, 44056, 96000, 192000, 768_000])
def test_any_rate_is_heard_as_long_as_it_sounds(rate: int, video: VideoFormat) -> None:
    heard = read.description(saved(Audio(torch.full((2, 2 * rate), 0.5), rate), video)).audio
    assert heard is not None
    assert heard.waveform.abs().max() > 0.1
    assert heard.waveform.shape[1] / heard.sample_rate == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("broken", [slice(0, 1), slice(1000, 30000), slice(None)])
def test_samples_that_are_no_numbers_are_silence_and_the_rest_is_kept(value: float, broken: slice) -> None:
    waveform = tone(2, 48000).clone()
    waveform[:, broken] = value
    audio, notes = playable(Audio(waveform, 48000))
    assert audio is not None and len(notes) == 1 and "NaN or infinite; they are written as silence" in notes[0]
    assert torch.equal(audio.waveform, torch.where(waveform.isfinite(), waveform, 0))
    saved(Audio(waveform, 48000))


@pytest.mark.parametrize("audio", [
    Audio(torch.zeros(2, 0), 48000), Audio(torch.zeros(0, 100), 48000), Audio(torch.zeros(0, 0), 0), Audio(torch.zeros(1, 9), 0),
    Audio(torch.zeros(1, 9), -44100)])
def test_no_sound_is_no_sound_and_is_said(audio: Audio) -> None:
    assert read.description(saved(audio)).audio is None
    nothing, notes = playable(audio)
    assert nothing is None and len(notes) == 1 and "the video is written without sound" in notes[0]


def test_good_sound_is_left_alone() -> None:
    for channels in LAYOUTS:
        audio = Audio(tone(channels, 44100), 44100)
        same, notes = playable(audio)
        assert same is not None and notes == [] and torch.equal(same.waveform, audio.waveform)
    assert playable(None) == (None, [])


def test_whole_numbers_are_as_loud_as_floats() -> None:
    floats = tone(2, 48000)
    audio, _ = playable(Audio((floats * 32767).round().to(torch.int16), 48000))
    assert audio is not None
    torch.testing.assert_close(audio.waveform, floats, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [3, 4, 5, 7, 8, 9, 16])
def test_each_channel_is_heard_on_its_side_and_none_clips(channels: int) -> None:
    loudest, _ = playable(Audio(torch.ones(channels, 10), 48000))
    assert loudest is not None and loudest.waveform.max() == pytest.approx(1)
    for channel in range(channels):
        waveform = torch.zeros(channels, 10)
        waveform[channel] = 1
        alone, _ = playable(Audio(waveform, 48000))
        assert alone is not None
        loud = alone.waveform.mean(1)
        assert loud.max() > 0.05
        if channel < 2:
            assert loud[channel] == loud.max() and loud[1 - channel] == 0


@pytest.mark.parametrize("seconds", [0.01, 0.5, 2.0, 7.0])
def test_sound_ends_by_itself_or_with_the_picture(seconds: float) -> None:
    file = saved(Audio(torch.full((1, round(48000 * seconds)), 0.5), 48000))
    heard = read.description(file).audio
    assert heard is not None
    assert heard.waveform.shape[1] / 48000 == pytest.approx(min(seconds, 2.0), abs=0.06)


# --- sound of a file that is loaded --------------------------------------------------------------------------------------------------


def recorded(path: Path, picture: float, sounds: list[tuple[float, np.ndarray]], codec: str = "pcm_s16le") -> Path:
    """A file whose pictures begin at `picture` seconds, with pieces of mono sound at 8000 Hz that begin at their times."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "bf": "0"})
        sound = container.add_stream(codec, rate=8000, layout="mono")
        assert isinstance(video, av.VideoStream) and isinstance(sound, av.AudioStream)
        video.width = video.height = 32
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8))
            frame.time_base, frame.pts = 1 / RATE, number + round(picture * RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for begin, samples in sounds:
            heard = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16", layout="mono")
            heard.sample_rate, heard.time_base, heard.pts = 8000, Fraction(1, 8000), round(begin * 8000)
            container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def clicking(seconds: float, *clicks: float) -> np.ndarray:
    samples = np.zeros(round(seconds * 8000), np.float32)
    for click in clicks:
        samples[round(click * 8000) :][:200] = 0.9
    return samples


def clicks_of(audio: Audio | None) -> list[float]:
    """Seconds at which something loud begins."""
    assert audio is not None
    loud = np.flatnonzero(audio.waveform.abs().amax(0).numpy() > 0.4)
    return [float(place) / audio.sample_rate for place, gap in zip(loud, np.diff(loud, prepend=-audio.sample_rate), strict=True)
            if gap > 0.1 * audio.sample_rate]


TIMES = {
    "together": (0.0, [(0.0, clicking(2, 0.25, 1.5))], [0.25, 1.5]),
    "late": (0.0, [(0.75, clicking(1, 0.25))], [1.0]),
    "before the picture": (0.5, [(0.0, clicking(2, 0.25, 1.5))], [1.0]),
    "both late, as in a recording that was cut": (1.5, [(1.5, clicking(2, 0.25))], [0.25]),
    "with a pause": (0.0, [(0.0, clicking(0.5, 0.25)), (1.25, clicking(0.5, 0.25))], [0.25, 1.5]),
    "again after the pictures": (0.0, [(0.0, clicking(0.5, 0.25)), (3600.0, clicking(0.5, 0.25))], [0.25]),
}


@pytest.mark.parametrize(("container", "case"), [
    (container, case) for container in ("mkv", "mov", "nut") for case in TIMES if container != "mov" or len(TIMES[case][1]) == 1])
def test_sound_keeps_its_time_with_the_picture(tmp_path: Path, container: str, case: str) -> None:
    """In files of every container that can say so: MOV keeps no pauses."""
    picture, sounds, expected = TIMES[case]
    loaded = read.description(str(recorded(tmp_path / f"clip.{container}", picture, sounds)))
    assert clicks_of(loaded.audio) == pytest.approx(expected, abs=0.01)
    again = read.description(saved(loaded.audio))
    assert clicks_of(again.audio) == pytest.approx(expected, abs=0.03)


def test_damaged_sound_is_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    """Bytes in the middle of the file are overwritten, at every place a twentieth further on."""
    path = recorded(tmp_path / "clip.mkv", 0.0, [(0.0, np.random.default_rng(0).random(16000).astype(np.float32) * 0.5)], "aac")
    whole = path.read_bytes()
    for place in range(len(whole) // 2, len(whole) - 200, len(whole) // 20):
        path.write_bytes(whole[:place] + b"\xff" * 100 + whole[place + 100 :])
        assert read.description(str(path)).count > 0
