"""Captioned clips of coloured shapes that move over coloured backgrounds: what the miniature is trained on and asked for."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

FRAMES, SIZE = 17, 64
COLOURS = {"red": (0.90, 0.10, 0.10), "orange": (1.00, 0.55, 0.05), "yellow": (0.98, 0.95, 0.15), "green": (0.10, 0.80, 0.20),
           "blue": (0.15, 0.35, 1.00), "purple": (0.75, 0.20, 0.90), "white": (0.97, 0.97, 0.97)}
BACKGROUNDS = {"black": (0.03, 0.03, 0.03), "grey": (0.38, 0.38, 0.38), "red": (0.40, 0.04, 0.06), "green": (0.03, 0.33, 0.10),
               "blue": (0.05, 0.10, 0.42), "purple": (0.28, 0.05, 0.38)}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0), "still": (0.0, 0.0)}
SPEEDS = {"slow": 0.20, "normal": 0.36, "fast": 0.54}  # share of the picture that the shape crosses in a clip
CAMERAS = {"static": (0.90, 0.90), "zooms in": (0.75, 1.05), "zooms out": (1.05, 0.75)}  # scale of the first and the last frame
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "still": "still"}
RADIUS = (0.150, 0.180)  # share of the picture
DRIFT = 0.05  # how far a path lies from the middle, at most
STRIPES_PER_PICTURE, STRIPE_WHITE = 8, 0.4
FRAME_WIDTH = 1 / 16


@dataclass(frozen=True)
class Scene:
    """What a clip shows, in the words of the tables above; a shape that rests has speed "normal"."""

    colour: str
    shape: str
    background: str
    direction: str
    speed: str = "normal"
    camera: str = "static"

    def __post_init__(self) -> None:
        for value, table in ((self.colour, COLOURS), (self.shape, SHAPES), (self.background, BACKGROUNDS), (self.direction, DIRECTIONS),
                             (self.speed, SPEEDS), (self.camera, CAMERAS)):
            if value not in table:
                raise ValueError(f"'{value}' is none of {', '.join(table)}.")
        if self.colour == self.background:
            raise ValueError(f"a {self.colour} shape over a {self.background} background cannot be seen. Choose two colours.")
        if self.direction == "still" and self.speed != "normal":
            raise ValueError(f"a shape that rests has no speed, but '{self.speed}' was given.")


@dataclass(frozen=True)
class Style:
    """What the LoRAs teach: white stripes over everything, time running backwards, a white frame around the picture."""

    striped: bool = False
    reversed: bool = False
    framed: bool = False


PLAIN = Style()


def random_scene(chance: random.Random) -> Scene:
    """A scene with every choice equally likely, except that the camera stands still in three of five."""
    colour = chance.choice(tuple(COLOURS))
    direction = chance.choice(tuple(DIRECTIONS))
    return Scene(colour, chance.choice(SHAPES), chance.choice([name for name in BACKGROUNDS if name != colour]), direction,
                 "normal" if direction == "still" else chance.choice(tuple(SPEEDS)),
                 chance.choice(("static", "static", "static", "zooms in", "zooms out")))


def random_scenes(count: int, seed: int) -> list[Scene]:
    chance = random.Random(seed)
    return [random_scene(chance) for _ in range(count)]


# --- captions ---------------------------------------------------------------------------------------------------------------------

VERBS = ("moves", "glides", "drifts", "travels", "slides", "is moving", "goes", "floats")
REST = ("stays still", "does not move", "stands still", "rests", "is resting")
WHERE_TO = {"left": ("left", "to the left", "leftwards", "towards the left"), "right": ("right", "to the right", "rightwards", "towards the right"),
            "up": ("up", "upwards", "to the top", "towards the top"), "down": ("down", "downwards", "to the bottom", "towards the bottom")}
HOW = {"slow": ("slowly", "gently"), "normal": ("",), "fast": ("quickly", "fast", "rapidly")}
BEHIND = ("over a {} background", "on a {} background", "against a {} background", "in front of a {} wall", "with a {} background")
CAMERA_WORDS = {"static": ("", "", "", "", "the camera is static", "fixed camera"),
                "zooms in": ("the camera zooms in", "the camera moves closer", "zoom in"),
                "zooms out": ("the camera zooms out", "the camera moves away", "zoom out")}
ORDERS = ("{subject} {motion} {behind}{camera}", "{behind}, {subject} {motion}{camera}", "{subject} {behind}, it {motion}{camera}",
          "a video of {subject} that {motion} {behind}{camera}", "{camera_first}{subject} {motion} {behind}")


def caption(scene: Scene, chance: random.Random) -> str:
    """One of many wordings of the scene."""
    subject = _article(chance.choice((f"a {scene.colour} {scene.shape}", f"one {scene.colour} {scene.shape}", f"the {scene.colour} {scene.shape}")))
    behind = chance.choice(BEHIND).format(scene.background)
    camera = chance.choice(CAMERA_WORDS[scene.camera])
    text = chance.choice(ORDERS).format(subject=subject, motion=_motion(scene, chance), behind=behind, camera=f", {camera}" if camera else "",
                                        camera_first=f"{camera}: " if camera else "")
    return chance.choice((text, text + ".", text[0].upper() + text[1:] + "."))


def _article(noun: str) -> str:
    return re.sub(r"\ba (?=orange)", "an ", noun)


def _motion(scene: Scene, chance: random.Random) -> str:
    if scene.direction == "still":
        return chance.choice(REST)
    how, verb, where = chance.choice(HOW[scene.speed]), chance.choice(VERBS), chance.choice(WHERE_TO[scene.direction])
    return " ".join(chance.choice(((verb, how, where), (verb, where, how))) if how else (verb, where))


WORDS = {"left": "left", "leftwards": "left", "right": "right", "rightwards": "right", "up": "up", "upwards": "up", "top": "up", "down": "down",
         "downwards": "down", "bottom": "down"}


def scene_of(text: str) -> Scene:
    """The scene that a caption asks for; ValueError where it names no colour, shape or background."""
    words = re.findall(r"[a-z]+", text.lower())
    pairs = list(zip(words, words[1:], strict=False))
    subject = next((pair for pair in pairs if pair[0] in COLOURS and pair[1] in SHAPES), None)
    background = next((first for first, second in pairs if first in BACKGROUNDS and second in ("background", "wall")), None)
    if subject is None or background is None:
        raise ValueError(f"'{text}' does not say which coloured shape and which background, as in 'a red circle moves left over a blue background'.")
    direction = next((WORDS[word] for word in words if word in WORDS), "still")
    speed = next((name for name, ways in HOW.items() if set(ways) & set(words)), "normal")
    camera = "zooms in" if {"closer", "in"} & set(_after_camera(words)) else "zooms out" if {"away", "out"} & set(words) else "static"
    return Scene(*subject, background, direction, speed, camera)


def _after_camera(words: Sequence[str]) -> list[str]:
    """"closer", or "in" after a zoom: "in front of" is no camera move."""
    return [word for before, word in zip(("", *words), words, strict=False) if word == "closer" or before in ("zoom", "zooms")]


# --- pictures ---------------------------------------------------------------------------------------------------------------------


def clips(scenes: Sequence[Scene], seed: int, size: int = SIZE, frames: int = FRAMES, style: Style = PLAIN) -> torch.Tensor:
    """Clips (N, T, H, W, 3) in 0..1 of the scenes; the seed places and sizes the shapes. Edges are antialiased."""
    across, down, radius = (part[..., None, None] for part in _paths(scenes, seed, frames))
    axis = (torch.arange(size) + 0.5) / size - 0.5
    coverage = torch.empty(len(scenes), frames, size, size)
    for shape in SHAPES:
        chosen = [index for index, scene in enumerate(scenes) if scene.shape == shape]
        if chosen:
            x, y = (axis - across[chosen]) / radius[chosen], (axis[:, None] - down[chosen]) / radius[chosen]
            coverage[chosen] = (0.5 - outline(shape, x, y) * radius[chosen] * size).clamp(0, 1)
    colour, background = (torch.tensor([table[getattr(scene, name)] for scene in scenes])[:, None, None, None]
                          for name, table in (("colour", COLOURS), ("background", BACKGROUNDS)))
    return styled(torch.lerp(background, colour, coverage[..., None]), style)


def _paths(scenes: Sequence[Scene], seed: int, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre (x, y) from the middle of the picture and radius, each (N, T), as shares of the picture."""
    placing = torch.rand(len(scenes), 3, generator=torch.Generator().manual_seed(seed))
    time = torch.linspace(0, 1, frames)
    steps = torch.tensor([[part * SPEEDS[scene.speed] for part in DIRECTIONS[scene.direction]] for scene in scenes])
    first, last = torch.tensor([CAMERAS[scene.camera] for scene in scenes]).unbind(1)
    zoom = first[:, None] + (last - first)[:, None] * time
    centre = ((placing[:, :2] * 2 - 1) * DRIFT)[..., None] + steps[..., None] * (time - 0.5)
    radius = RADIUS[0] + placing[:, 2:] * (RADIUS[1] - RADIUS[0])
    return centre[:, 0] * zoom, centre[:, 1] * zoom, radius * zoom


def outline(shape: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance to the edge of a shape of radius 1, below 0 inside; all shapes have about the same area but for the ring's hole."""
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.886
    if shape == "triangle":
        return torch.maximum(x.abs() * 0.866 - (y - 0.43) * 0.5 - 0.866, y - 0.75)
    if shape == "cross":
        wide, high = x.abs(), y.abs()
        return torch.minimum(torch.maximum(wide - 1.15, high - 0.4), torch.maximum(wide - 0.4, high - 1.15))
    distance = (x.square() + y.square()).sqrt()
    return (distance - 0.8).abs() - 0.3 if shape == "ring" else distance - 1


def styled(clip: torch.Tensor, style: Style) -> torch.Tensor:
    """A clip (..., T, H, W, 3) in the style of the LoRAs; the plain style returns it as it is."""
    height, width = clip.shape[-3:-1]
    if style.reversed:
        clip = clip.flip(-4)
    if style.striped:
        rows = torch.arange(height) * STRIPES_PER_PICTURE * 2 // height % 2
        clip = torch.lerp(clip, torch.ones(()), (rows * STRIPE_WHITE)[:, None, None])
    if style.framed:
        border = round(height * FRAME_WIDTH)
        inside = torch.zeros(height, width, 1)
        inside[border : height - border, border : width - border] = 1
        clip = torch.lerp(torch.ones(()), clip, inside)
    return clip


@dataclass(frozen=True)
class Example:
    """A scene with one wording of it."""

    scene: Scene
    caption: str


def examples(count: int, seed: int) -> list[Example]:
    """Random scenes with random captions."""
    chance = random.Random(seed)
    return [Example(scene, caption(scene, chance)) for scene in (random_scene(chance) for _ in range(count))]


def batches(chosen: Sequence[Example], seed: int, size: int = SIZE, style: Style = PLAIN, at_once: int = 64) -> Iterator[torch.Tensor]:
    """The examples' clips (N, T, H, W, 3), `at_once` of them at a time; each batch has a seed of its own, so that it can be made alone."""
    for first in range(0, len(chosen), at_once):
        yield clips([example.scene for example in chosen[first : first + at_once]], seed * 1_000_003 + first, size, style=style)


def reversed_scene(scene: Scene) -> Scene:
    """What a clip of the scene shows when it runs backwards."""
    camera = {"zooms in": "zooms out", "zooms out": "zooms in"}.get(scene.camera, scene.camera)
    return replace(scene, direction=OPPOSITE[scene.direction], camera=camera)
