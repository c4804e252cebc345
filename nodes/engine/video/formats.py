"""What a file can be: codecs, containers, and what the names of quality and write mode mean to each encoder.

CRF and presets were chosen by measurement on real clips (`python dev.py bench video --table`), so that a higher quality never has the lower SSIM and,
at every quality, `small` makes the smallest file and `fast` takes the least time. Presets of SVT-AV1 above 6 flicker in 10-bit fades.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import av

from ..choices import check_choice, choose

QUALITIES = ("low", "medium", "high", "maximum")
WRITE_MODES = ("fast", "balanced", "small")
BIT_DEPTHS = (8, 10)
AUTO = "auto"
FEW_FRAMES = 8  # fewer than encoders look ahead
Options = Mapping[str, str]


@dataclass(frozen=True)
class Effort:
    """What a write mode means to an encoder: its options, and its rate factor for low, medium, high and maximum quality."""

    options: Options
    factors: tuple[str | int, str | int, str | int, str | int]

    def options_for(self, quality: str, factor_option: str) -> dict[str, str]:
        return {**self.options, factor_option: str(self.factors[QUALITIES.index(quality)])}


@dataclass(frozen=True)
class Limits:
    """What an encoder takes: the least side of a picture, its most width and height, frames per second, and the least longer side, in even pixels."""

    least: int = 2
    width: int = 65534
    height: int = 65534
    rate: int | None = None
    long_side: int = 2

    def hold_size(self, width: int, height: int) -> bool:
        large_enough = min(width, height) >= self.least and max(width, height) >= self.long_side
        return large_enough and width // 2 * 2 <= self.width and height // 2 * 2 <= self.height

    def hold_rate(self, rate: Fraction) -> bool:
        return self.rate is None or rate <= self.rate


@dataclass(frozen=True)
class Codec:
    """One encoder of FFmpeg: its settings per write mode, its pixel format per bit depth, the containers that hold it (first: default)."""

    encoder: str
    fast: Effort
    balanced: Effort
    small: Effort
    pixel_formats: Mapping[int, str]
    containers: tuple[str, ...]
    always: Options = field(default_factory=dict)
    factor_option: str = "crf"
    tag: str | None = None
    limits: Limits = Limits()
    few_frames: Options = field(default_factory=dict)

    def options(self, quality: str, write_mode: str) -> dict[str, str]:
        effort: Effort = {"fast": self.fast, "balanced": self.balanced, "small": self.small}[write_mode]
        return {**self.always, **effort.options_for(quality, self.factor_option)}


YUV420 = {8: "yuv420p", 10: "yuv420p10le"}
PRORES = Effort({}, ("proxy", "lt", "standard", "hq"))
CODECS = {
    "h264": Codec("libx264", Effort({"preset": "veryfast"}, (26, 21, 17, 11)), Effort({"preset": "medium"}, (28, 23, 18, 12)),
                  Effort({"preset": "slower"}, (28, 23, 18, 12)), YUV420, ("mp4", "mov", "mkv"), limits=Limits(2, 16384, 16384)),
    "h265": Codec("libx265", Effort({"preset": "ultrafast"}, (25, 18, 13, 9)), Effort({"preset": "fast"}, (30, 23, 18, 12)),
                  Effort({"preset": "slow"}, (31, 25, 20, 14)), YUV420, ("mp4", "mov", "mkv"), {"x265-params": "log-level=error"}, tag="hvc1",
                  limits=Limits(16, 16384, 16384, long_side=64), few_frames={"x265-params": "log-level=error:bframes=0"}),
    # x265 writes beyond its memory where the longer side is 34 to 48, and gives chance for the times of frames that it never had
    "av1": Codec("libsvtav1", Effort({"preset": "6"}, (46, 30, 18, 8)), Effort({"preset": "5"}, (46, 30, 18, 8)),
                 Effort({"preset": "3"}, (46, 30, 18, 8)), YUV420, ("mp4", "webm", "mkv"), limits=Limits(4, 16384, 8704, 240)),
    "vp9": Codec("libvpx-vp9", Effort({"deadline": "realtime", "cpu-used": "7"}, (40, 28, 17, 8)),
                 Effort({"deadline": "good", "cpu-used": "4"}, (41, 29, 17, 8)), Effort({"deadline": "good", "cpu-used": "1"}, (42, 30, 19, 9)),
                 YUV420, ("webm", "mp4", "mkv"), {"b": "0", "row-mt": "1"}),
    "prores": Codec("prores_ks", PRORES, PRORES, PRORES, {8: "yuv422p10le", 10: "yuv422p10le"}, ("mov", "mkv"), {"vendor": "apl0"}, "profile"),
}
MUXERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "webm": "webm"}
ANIMATIONS, SEQUENCES = ("webp", "gif"), ("png", "jpg")  # what `pictures` writes: one file that moves, or a file for each frame
CONTAINERS = (AUTO, *MUXERS, *ANIMATIONS, *SEQUENCES)
ANY_CODEC = "h264"  # what a node has that asks for no other
PICTURE_RATES = {"gif": 50, "webp": 90}  # browsers play frames of 10 ms and less at 10 a second; a GIF counts in 10 ms


def available_codecs() -> list[str]:
    """Those of the table that this build of PyAV has an encoder for."""
    return [name for name, codec in CODECS.items() if codec.encoder in av.codec.codecs_available]


def available_bit_depths(codec: str) -> list[int]:
    formats = {pixels.name for pixels in av.Codec(CODECS[codec].encoder, "w").video_formats or []}
    return [depth for depth, pixels in CODECS[codec].pixel_formats.items() if pixels in formats]


def check_format(video_quality: str, video_write_mode: str, codec: str, container: str, bit_depth: int) -> None:
    """ValueError unless every name is in the tables, this PyAV has the encoder, and the container holds the codec."""
    check_choice("video_quality", video_quality, QUALITIES)
    check_choice("video_write_mode", video_write_mode, WRITE_MODES)
    check_choice("codec", codec, available_codecs())
    if bit_depth not in BIT_DEPTHS:
        raise ValueError(f"bit_depth is {bit_depth}; choose 8 or 10.")
    if container in ANIMATIONS + SEQUENCES:
        _check_pictures(codec, container, bit_depth)
        return
    check_choice(f"container for {codec}", container, (AUTO, *CODECS[codec].containers, *(ANIMATIONS + SEQUENCES if codec == ANY_CODEC else ())))
    if bit_depth not in available_bit_depths(codec):
        raise ValueError(f"bit_depth is {bit_depth}, but the {CODECS[codec].encoder} of this PyAV writes 8 only. Choose 8, or av1 or h265.")


def _check_pictures(codec: str, container: str, bit_depth: int) -> None:
    if codec != ANY_CODEC:
        raise ValueError(f"codec is '{codec}', but {container} holds pictures, which no codec of videos writes. Leave codec at {ANY_CODEC}, "
                         f"or choose the container {CODECS[codec].containers[0]}.")
    if bit_depth > 8 and container != "png":
        raise ValueError(f"bit_depth is {bit_depth}, but {container} holds 8 bits per colour. Choose 8, or the container png, which then has 16.")


def check_size(codec: str, width: int, height: int) -> None:
    """ValueError where the encoder takes no pictures of that size."""
    limits = CODECS[codec].limits
    if not limits.hold_size(width, height):
        fitting = [name for name in available_codecs() if CODECS[name].limits.hold_size(width, height)]
        raise ValueError(f"the picture is {width}x{height}, and {codec} takes {limits.least}x{limits.least} to {limits.width}x{limits.height}"
                         f"{f', one side at least {limits.long_side}' if limits.long_side > limits.least else ''}. "
                         f"Resize it before it is saved{_or_choose(fitting)}.")


def check_rate(codec: str, rate: Fraction, container: str = AUTO) -> None:
    """ValueError where the encoder takes fewer frames per second, or browsers would play an animation of that rate slowly."""
    if rate > PICTURE_RATES.get(container, rate):
        raise ValueError(f"the video has {float(rate):g} frames per second, and browsers play a {container} of more than {PICTURE_RATES[container]} "
                         f"slowly. Interpolate fewer frames, lower frames_per_second, or choose the container {_faster_than(rate)}.")
    if container in ANIMATIONS + SEQUENCES:
        return
    limits = CODECS[codec].limits
    if not limits.hold_rate(rate):
        fitting = [name for name in available_codecs() if CODECS[name].limits.hold_rate(rate)]
        raise ValueError(f"the video has {float(rate):g} frames per second, and {codec} takes {limits.rate} at most. "
                         f"Interpolate fewer frames, lower frames_per_second{_or_choose(fitting)}.")


def _faster_than(rate: Fraction) -> str:
    return " or ".join(("mp4", *(name for name, most in PICTURE_RATES.items() if rate <= most)))


def _or_choose(codecs: list[str]) -> str:
    return f", or choose the codec {' or '.join(codecs)}" if codecs else ""


@dataclass(frozen=True)
class VideoFormat:
    """Encoder settings of the file to write; `options` replace those that the names stand for. ValueError for names that are not in the tables."""

    quality: str = "high"
    write_mode: str = "balanced"
    codec: str = "h264"
    container: str = AUTO
    bit_depth: int = 8
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_format(self.quality, self.write_mode, self.codec, self.container, self.bit_depth)

    @property
    def encoder(self) -> Codec:
        return choose("codec", self.codec, CODECS)

    def encoder_options(self, count: int) -> dict[str, str]:
        """For a video of so many frames."""
        few = self.encoder.few_frames if count < FEW_FRAMES else {}
        return {**self.encoder.options(self.quality, self.write_mode), **few, **self.options}

    @property
    def pixel_format(self) -> str:
        return self.encoder.pixel_formats[self.bit_depth]

    @property
    def of_pictures(self) -> bool:
        """Whether `pictures` writes it, not an encoder of videos."""
        return self.container in ANIMATIONS + SEQUENCES

    @property
    def level_depth(self) -> int:
        """Bits per colour of the RGB levels to hand in: more than 8 where the file keeps more."""
        if self.of_pictures:
            return 8 if self.bit_depth == 8 else 16
        return 8 if self.pixel_format == "yuv420p" else 16

    @property
    def extension(self) -> str:
        return self.encoder.containers[0] if self.container == AUTO else self.container

    @property
    def muxer(self) -> str:
        return MUXERS[self.extension]
