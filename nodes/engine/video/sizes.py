"""Frame sizes and frame counts that Wan 2.2 can make."""

from dataclasses import dataclass

from ..choices import check_range, choose

MULTIPLE = 16  # VAE stride 8 times patch size 2
LATENT_STRIDE = 8
MIN_FRAMES, MAX_FRAMES = 1, 161  # one is a picture
MAX_SIDE = 4096
CUSTOM = "custom"

# Width and height in pixels, of about one area per resolution, as in training; those of Alibaba's own service where it has them.
LANDSCAPE = {"480p": (832, 480), "580p": (1024, 576), "720p": (1280, 720)}
SQUARE = {"480p": (624, 624), "580p": (768, 768), "720p": (960, 960)}
CLASSIC = {"480p": (736, 560), "580p": (896, 672), "720p": (1088, 832)}
SHAPES = {"16:9": LANDSCAPE, "9:16": LANDSCAPE, "1:1": SQUARE, "4:3": CLASSIC, "3:4": CLASSIC}
TALL = {"9:16", "3:4"}
RESOLUTIONS = (*LANDSCAPE, CUSTOM)
ASPECT_RATIOS = tuple(SHAPES)


@dataclass(frozen=True)
class Size:
    """Width and height of a frame in pixels, both multiples of 16."""

    width: int
    height: int

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            check_range(name, value, MULTIPLE, MAX_SIDE)
            if value % MULTIPLE:
                below = value // MULTIPLE * MULTIPLE
                raise ValueError(f"{name} is {value}; Wan needs multiples of {MULTIPLE}: use {below} or {below + MULTIPLE}.")


def video_size(resolution: str, aspect_ratio: str, width: int, height: int) -> Size:
    """The size of a named resolution, or `width` x `height` when `resolution` is "custom"; ValueError for what is not in the tables."""
    shape = choose("aspect_ratio", aspect_ratio, SHAPES)
    if resolution == CUSTOM:
        return Size(width, height)
    long_side, short_side = choose("resolution", resolution, shape)
    return Size(short_side, long_side) if aspect_ratio in TALL else Size(long_side, short_side)


def latent_frames(num_frames: int) -> int:
    """Latent frames T whose decoded 4(T-1)+1 frames are the fewest that cover `num_frames`."""
    check_range("num_frames", num_frames, MIN_FRAMES, MAX_FRAMES)
    return -(-(num_frames - 1) // 4) + 1


def decoded_frames(latent_frame_count: int) -> int:
    """Frames the causal VAE makes of T latent frames: 4(T-1)+1."""
    return 4 * (latent_frame_count - 1) + 1
