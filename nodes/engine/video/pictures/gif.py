"""GIF: 256 colours chosen from all frames, which are seen once for that and once more to be written."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext

from ...frames import FrameStream
from ..formats import QUALITIES, VideoFormat, check_rate
from ..write import Levels, encode_beside

PlayAgain = Callable[[Iterator[Levels]], Iterator[Levels]]
COLOURS = (32, 64, 128, 256)
DITHERS = {"fast": "bayer:bayer_scale=5", "balanced": "atkinson", "small": "none"}  # from afar atkinson is nearest; none is smallest
TICK = Fraction(1, 100)  # seconds: what a GIF counts in
FOREVER = "0"
MOST_PIXELS = 65535
COARSE = np.rint(np.rint(np.arange(256) * 63 / 255) * 255 / 63).astype(np.uint8)  # 64 levels: 262144 colours to count at most


def write(path: Path, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, played_again: PlayAgain) -> int:
    """Write frames of 8 bits that loop for ever; returns how many. `played_again(clip)` yields `clip` from its beginning once it has ended."""
    check_rate(video.codec, stream.rate, video.container)
    if max(stream.width, stream.height) > MOST_PIXELS:
        raise ValueError(f"the picture is {stream.width}x{stream.height}, and gif takes {MOST_PIXELS} pixels a side. Resize it before it is saved.")
    palette = Palette(stream, COLOURS[QUALITIES.index(video.quality)])
    last = tick(stream.count, stream.rate) - tick(stream.count - 1, stream.rate)
    with av.open(str(path), "w", format="gif", options={"loop": FOREVER, "final_delay": str(last)}) as container:
        track = Track(container, stream, DITHERS[video.write_mode], palette)
        encode_beside(track.encode, played_again(palette.noting(clip)))
        track.close()
    return track.count


class Palette:
    """The colours that serve all frames best, chosen by FFmpeg's `palettegen`."""

    def __init__(self, stream: FrameStream, colours: int) -> None:
        self.graph = Graph()
        frames = _buffer(self.graph, stream.width, stream.height, "rgb24")
        self.graph.link_nodes(frames, self.graph.add("format", "pix_fmts=bgra"),
                              self.graph.add("palettegen", f"max_colors={colours}:reserve_transparent=0"), self.graph.add("buffersink")).configure()
        self.picture: av.VideoFrame | None = None  # of 16x16, once all frames have passed

    def noting(self, clip: Iterator[Levels]) -> Iterator[Levels]:
        """Count the colours of the chunks that pass."""
        count = 0
        for chunk in clip:
            for picture in chunk:
                self.graph.push(_frame(COARSE[picture], count))
                self._process()
                count += 1
            yield chunk
        self.graph.push(None)
        self._process()

    def _process(self) -> None:
        """A graph only works when it is asked for something; until then it holds the frames."""
        for picture in _ready(self.graph):
            picture.pts, picture.time_base = 0, TICK
            self.picture = picture


class InColours:
    """Frames in the colours of a palette, by FFmpeg's `paletteuse`."""

    def __init__(self, width: int, height: int, dither: str, palette: av.VideoFrame) -> None:
        self.graph = Graph()
        self.frames, colours = _buffer(self.graph, width, height, "rgb24"), _buffer(self.graph, 16, 16, "bgra")
        same, mapping = self.graph.add("format", "pix_fmts=bgra"), self.graph.add("paletteuse", f"dither={dither}:diff_mode=rectangle")
        self.mapped = self.graph.add("buffersink")
        self.frames.link_to(same)
        same.link_to(mapping, 0, 0)
        colours.link_to(mapping, 0, 1)
        mapping.link_to(self.mapped)
        self.graph.configure()
        colours.push(palette)
        colours.push(None)

    def of(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """What is ready after one more frame, or after the last one, which is followed by None."""
        self.frames.push(frame)
        return _ready(self.mapped)


class Track:
    """The frames of a GIF in the colours of a palette, each at its time to a tick, so that no error adds up."""

    def __init__(self, container: av.container.OutputContainer, stream: FrameStream, dither: str, palette: Palette) -> None:
        self.container, self.rate, self.count = container, stream.rate, 0
        track = container.add_stream("gif", rate=stream.rate)
        assert isinstance(track, av.VideoStream)
        self.track = track
        self.track.width, self.track.height, self.track.pix_fmt = stream.width, stream.height, "pal8"
        self.track.codec_context.time_base = TICK
        self.dither, self.palette = dither, palette
        self.mapping: InColours | None = None

    def encode(self, chunk: Levels) -> None:
        """Frames (T, H, W, 3), once the palette has seen all of them."""
        for picture in chunk:
            self.mapping = self.mapping or self._in_colours()
            self._mux(self.mapping.of(_frame(picture, tick(self.count, self.rate))))
            self.count += 1

    def close(self) -> None:
        if self.mapping is not None:
            self._mux(self.mapping.of(None))
        self.container.mux(self.track.encode(None))

    def _in_colours(self) -> InColours:
        assert self.palette.picture is not None
        return InColours(self.track.width, self.track.height, self.dither, self.palette.picture)

    def _mux(self, mapped: Iterator[av.VideoFrame]) -> None:
        for frame in mapped:
            self.container.mux(self.track.encode(frame))


def tick(frame: int, rate: Fraction) -> int:
    """When a frame begins, in hundredths of a second."""
    return round(frame / rate / TICK)


def _ready(sink: Graph | FilterContext) -> Iterator[av.VideoFrame]:
    """Frames that a graph has ready, if any."""
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            frame = sink.pull()
            assert isinstance(frame, av.VideoFrame)
            yield frame


def _buffer(graph: Graph, width: int, height: int, pixels: str) -> FilterContext:
    return graph.add("buffer", f"video_size={width}x{height}:pix_fmt={pixels}:time_base={TICK}:pixel_aspect=1/1")


def _frame(picture: np.ndarray, time: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts, frame.time_base = time, TICK
    return frame
