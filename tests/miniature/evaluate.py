"""Score the exported miniature through the pack's own nodes' code: 256 prompts with fixed seeds, judged by plain image measures.

    python dev.py miniature evaluate [--models FOLDER] [--prompts 256] [--only RUN ...] [--grid grid.png]

Every run is one line of the table: the share of clips in which colour, shape, direction, ... are what the prompt says. A prompt for a wrong
thing is scored against the right one. --out keeps what was measured as JSON.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import torch
from einops import rearrange

import magcache
from comfyui import has_gpu, import_pack
from engine.sampling.experts import Schedule
from miniature import export, text
from miniature.experts import padding_as_one
from miniature.judge import Verdict, judge
from miniature.recipe import STYLES
from miniature.scenes import FRAMES, PLAIN, SIZE, Example, Scene, Style, clips, examples, reversed_scene
from videos import write_png

FIRST_PROMPTS = 990_001  # the seed that draws the prompts: not one that training draws from
AT_ONCE = 16
MAGCACHE = "magcache"
MEASURES = ("colour", "shape", "direction", "background", "camera")


@dataclass(frozen=True)
class Setting:
    """One way to sample; everything else is the node's default. `loras` are (style, expert or "auto", scale); `acceleration` is the node's, or
    MAGCACHE, the first version's."""

    steps: int = 27
    shift: float = 5.0
    guidance: tuple[float, float] = (3.5, 4.0)
    solver: str = "unipc"
    acceleration: str = "none"
    boundary: float = 0.875
    prompts: str = "right"
    experts: tuple[str, str] = ("high", "low")
    loras: tuple[tuple[str, str, float], ...] = ()

    def schedule(self) -> Schedule:
        return Schedule(self.solver, self.steps, self.shift)


@dataclass(frozen=True)
class Run:
    """A line of the table: the setting, and what its clips should look like beside the scene."""

    name: str
    setting: Setting
    style: Style = PLAIN


DEFAULT = Setting(acceleration="regular")  # the node's own defaults
NONE = Setting()
STRIPED, REVERSED, FRAMED = (("striped", "auto", 1.0), ("reversed", "auto", 1.0), ("framed", "auto", 1.0))


def lora_run(name: str, *loras: tuple[str, str, float], style: Style) -> Run:
    return Run(name, replace(NONE, loras=loras), style)


RUNS = (
    Run("default", DEFAULT),
    Run("acceleration none", NONE),
    Run("guidance 1", replace(NONE, guidance=(1.0, 1.0))),
    Run("wrong prompt", replace(NONE, prompts="wrong")),
    Run("empty prompt", replace(NONE, prompts="empty")),
    Run("experts swapped", replace(NONE, experts=("low", "high"))),
    Run("high expert only", replace(NONE, experts=("high", "high"))),
    Run("low expert only", replace(NONE, experts=("low", "low"))),
    Run("boundary 0.7", replace(NONE, boundary=0.7)),
    Run("boundary 0.95", replace(NONE, boundary=0.95)),
    Run("euler 27", replace(NONE, solver="euler")),
    lora_run("striped 1", STRIPED, style=STYLES["striped"]),
    lora_run("striped 0.5", ("striped", "auto", 0.5), style=STYLES["striped"]),
    lora_run("striped 0", ("striped", "auto", 0.0), style=STYLES["striped"]),
    lora_run("striped, high only", ("striped", "high", 1.0), style=STYLES["striped"]),
    lora_run("striped, low only", ("striped", "low", 1.0), style=STYLES["striped"]),
    lora_run("reversed 1", REVERSED, style=STYLES["reversed"]),
    lora_run("reversed 0.5", ("reversed", "auto", 0.5), style=STYLES["reversed"]),
    lora_run("reversed 0", ("reversed", "auto", 0.0), style=STYLES["reversed"]),
    lora_run("reversed, high only", ("reversed", "high", 1.0), style=STYLES["reversed"]),
    lora_run("reversed, low only", ("reversed", "low", 1.0), style=STYLES["reversed"]),
    lora_run("striped and reversed", STRIPED, REVERSED, style=Style(striped=True, reversed=True)),
    lora_run("framed 1 (low only)", FRAMED, style=STYLES["framed"]),
)
DISTANCES = (("unipc 27", NONE), ("euler 27", replace(NONE, solver="euler")), ("unipc 10", replace(NONE, steps=10)),
             ("euler 10", replace(NONE, solver="euler", steps=10)))
REFERENCE = replace(NONE, solver="euler", steps=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=export.MODELS, help="an exported models folder")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--only", nargs="*", help="names of runs; `vae` and `distances` are names as well")
    parser.add_argument("--grid", type=Path, default=Path("grid.png"), help="where 16 clips of the default run are drawn")
    parser.add_argument("--out", type=Path, help="JSON of what was measured")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    miniature = Miniature(options.models, examples(options.prompts, FIRST_PROMPTS))
    table = Table(options.out)
    truth = ground_truth(miniature.chosen)
    table.add("ground truth", scores(miniature.chosen, truth, PLAIN))
    if not options.only or "vae" in options.only:
        through_vae = miniature.through_vae(truth)
        table.add("ground truth, by VAE", scores(miniature.chosen, through_vae, PLAIN))
        print(f"the VAE alone: PSNR {psnr(truth, through_vae):.1f} dB")
    decoded: dict[str, torch.Tensor] = {}
    for run in RUNS:
        if not options.only or run.name in options.only:
            begin = time.monotonic()
            decoded[run.name] = miniature.clips(run.setting)
            table.add(run.name, scores(miniature.chosen, decoded[run.name], run.style), time.monotonic() - begin)
    if {"default", "acceleration none"} <= set(decoded):
        print(f"acceleration regular against none: PSNR {psnr(decoded['default'], decoded['acceleration none']):.1f} dB")
    if decoded:
        draw_grid(miniature.chosen, next(iter(decoded.values())), options.grid)
    if not options.only or "distances" in options.only:
        print_distances(miniature)


class Miniature:
    """The exported files, loaded as the pack's nodes load them, and the prompts."""

    def __init__(self, folder: Path, chosen: Sequence[Example]) -> None:
        self.pack: ModuleType = import_pack(cpu=not has_gpu())
        import comfy.sd
        import comfy.utils
        import folder_paths
        for name in ("diffusion_models", "text_encoders", "vae", "loras"):
            folder_paths.add_model_folder_path(name, str(folder / name), is_default=True)
        self.chosen = chosen
        models = self.pack.nodes.host.models.files
        self.experts = {name: models.load_expert(export.FILES[f"{name}_noise_model"], "default") for name in ("high", "low")}
        self.vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(models.model_path("vae", export.FILES["vae_name"]))))
        self.clip = models.load_text_encoder(export.FILES["text_encoder"], "default")
        self.known: dict[str, torch.Tensor] = {}
        self.model_calls: dict[Setting, int] = {}  # of each setting that was sampled
        self.all_calls: dict[Setting, int] = {}  # had every step been computed
        for expert in self.experts.values():
            expert.model_options["transformer_options"]["optimized_attention_override"] = padding_as_one(text.LONGEST + 1)

    def prompts(self, kind: str) -> list[str]:
        """The captions; or those of other scenes, or none."""
        if kind == "empty":
            return [""] * len(self.chosen)
        others = examples(len(self.chosen), FIRST_PROMPTS + 1)
        return [example.caption for example in (self.chosen if kind == "right" else others)]

    @torch.inference_mode()
    def encoded(self, texts: Iterable[str]) -> list[list[Any]]:
        """CONDITIONING of a batch of prompts (B, LONGEST + 1, 4096): of the padding, which is most of 512 tokens and all alike, one is left."""
        states = []
        for prompt in texts:
            if prompt not in self.known:
                self.known[prompt] = self.pack.nodes.host.text.encode(self.clip, prompt)[0][0][:, : text.LONGEST + 1].half()
            states.append(self.known[prompt])
        return [[torch.cat(states).float(), {}]]

    def patched(self, setting: Setting, opening: int = 0) -> tuple[Any, Any]:
        """The experts in the order asked for, with the peer's cache on them, and the LoRAs from the first step after the opening."""
        high, low = (self.experts[name] for name in setting.experts)
        choice, span = self.pack.nodes.engine.lora.routing.LoraChoice, self.pack.nodes.engine.spans.Span(opening + 1)
        stack = []
        for style, target, scale in setting.loras:
            only = target if target in ("high", "low") else "low" if style == "framed" else "high"
            stack.append(choice(export.LORA.format(style, only), scale, "auto" if target == "auto" and style != "framed" else only, span))
        pair = self.pack.nodes.host.models.lora.apply(high, low, stack)[:2] if stack else (high, low)
        return with_magcache(pair, setting) if setting.acceleration == MAGCACHE else pair

    @torch.inference_mode()
    def latents(self, setting: Setting, count: int | None = None, opening: int = 0) -> torch.Tensor:
        """Sampled latents (N, 16, 5, 8, 8), AT_ONCE prompts at a time, the seed by batch. The steps of the opening go without LoRAs, at its own
        guidance."""
        prompts = self.prompts(setting.prompts)[:count]
        pair = self.patched(setting, opening)
        return torch.cat([self._batch(setting, pair, prompts[first : first + AT_ONCE], first, opening) for first in range(0, len(prompts), AT_ONCE)])

    def _batch(self, setting: Setting, pair: tuple[Any, Any], prompts: Sequence[str], seed: int, opening: int) -> torch.Tensor:
        plan, sampling, latents = self.pack.nodes.engine.sampling.experts, self.pack.nodes.host.sampling.run, self.pack.nodes.host.video.latents
        empty = latents.empty(self.pack.nodes.engine.video.sizes.Size(SIZE, SIZE), FRAMES)
        empty["samples"] = empty["samples"].repeat(len(prompts), 1, 1, 1, 1)
        guider = sampling.guider(*pair, self.encoded(prompts), self.encoded([""] * len(prompts)), plan.Guidance(*setting.guidance, opening),
                                 setting.shift, "none" if setting.acceleration == MAGCACHE else setting.acceleration, setting.boundary)
        latent, steps = sampling.sample(guider, empty, seed, setting.schedule())
        skipped = magcache.planned(setting.schedule(), setting.boundary) if setting.acceleration == MAGCACHE else ()
        self.model_calls[setting] = sum(calls for step, calls in zip(steps.steps, steps.calls(), strict=True) if step.timestep not in skipped)
        self.all_calls[setting] = steps.model_calls(all_computed=True)
        return latent["samples"]

    @torch.inference_mode()
    def clips(self, setting: Setting, count: int | None = None) -> torch.Tensor:
        """Decoded clips (N, T, H, W, 3) as bytes, of all prompts or of the first `count`."""
        return self.decoded(self.latents(setting, count))

    @torch.inference_mode()
    def through_vae(self, truth: torch.Tensor) -> torch.Tensor:
        """What encoding and decoding leaves of clips (N, T, H, W, 3) of bytes."""
        return self.decoded(torch.cat([self.vae.encode(clip.float() / 255) for clip in truth]))

    @torch.inference_mode()
    def decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, H, W, 3) of bytes of sampled latents."""
        decoded = torch.cat([self.vae.decode(part) for part in latents.split(AT_ONCE)])
        return (decoded.clamp(0, 1) * 255).round().byte().reshape(len(latents), FRAMES, SIZE, SIZE, 3)


    def previewed(self, latents: torch.Tensor) -> torch.Tensor:
        """Previews (N, T, H/8, W/8, 3) in 0..1, as the sampler makes them, of sampled latents (N, 16, T, H/8, W/8)."""
        import latent_preview
        wan = self.experts["high"].model.latent_format
        previewer = latent_preview.Latent2RGBPreviewer(wan.latent_rgb_factors, wan.latent_rgb_factors_bias)
        made = self.pack.nodes.host.sampling.previews.by_colour_factors
        return torch.stack([made(latent[None], previewer) for latent in wan.process_in(latents)])


def with_magcache(pair: tuple[Any, Any], setting: Setting) -> tuple[Any, Any]:
    skipped = magcache.planned(setting.schedule(), setting.boundary)
    return magcache.cached(pair[0], skipped), magcache.cached(pair[1], skipped)


@dataclass(frozen=True)
class Scores:
    """Shares of the clips, 0..1, with each measure right; `all` where colour, shape and direction are."""

    right: dict[str, float]
    striped: float
    framed: float
    stripe_strength: float

    def cells(self) -> list[str]:
        return [f"{100 * value:6.1f}" for value in (*self.right.values(), self.striped, self.framed)] + [f"{self.stripe_strength:6.3f}"]


def scores(chosen: Sequence[Example], made: torch.Tensor, style: Style) -> Scores:
    """Judge every clip against its scene, the motion turned round where the style says so."""
    verdicts = [judge(clip.float() / 255) for clip in made]
    wanted = [reversed_scene(example.scene) if style.reversed else example.scene for example in chosen]
    pairs: list[tuple[Verdict, Scene]] = list(zip(verdicts, wanted, strict=True))
    right = {name: mean(verdict.agrees(scene, name) for verdict, scene in pairs) for name in MEASURES}
    right["all"] = mean(verdict.agrees(scene, "colour", "shape", "direction") for verdict, scene in pairs)
    return Scores(right, mean(v.striped for v in verdicts), mean(v.framed for v in verdicts), mean(v.stripe_strength for v in verdicts))


def mean(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed)


def ground_truth(chosen: Sequence[Example]) -> torch.Tensor:
    return (clips([example.scene for example in chosen], FIRST_PROMPTS) * 255).round().byte()


@dataclass
class Table:
    """Prints lines as they come, and keeps them."""

    out: Path | None
    lines: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, scores_of_it: Scores, seconds: float = 0.0) -> None:
        if not self.lines:
            print(f"{'run':<24}" + "".join(f"{title:>11}" for title in (*MEASURES, "all three", "striped", "framed", "stripes")) + f"{'s':>7}")
        print(f"{name:<24}" + "".join(f"{cell:>11}" for cell in scores_of_it.cells()) + f"{seconds:>7.0f}", flush=True)
        self.lines[name] = {**vars(scores_of_it), "seconds": seconds}
        if self.out:
            self.out.write_text(json.dumps(self.lines, indent=1), encoding="utf-8")


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Decibels between clips of bytes."""
    error = (one.float() - other.float()).square().mean().item()
    return 10 * math.log10(255**2 / error) if error else math.inf


def print_distances(miniature: Miniature, count: int = 16) -> None:
    """How far a solver's latents are from 200 steps of euler with the same noise, as a share of the reference's deviation."""
    reference = miniature.latents(REFERENCE, count)
    for name, setting in DISTANCES:
        distance = (miniature.latents(setting, count) - reference).square().mean().sqrt() / reference.std()
        print(f"distance to euler 200: {name:<10} {float(distance):.4f}", flush=True)


def draw_grid(chosen: Sequence[Example], made: torch.Tensor, path: Path, columns: int = 5, count: int = 16) -> None:
    """A picture of up to 16 clips, a row each, with their prompts."""
    picked = random.Random(0).sample(range(len(made)), min(count, len(made)))
    times = torch.linspace(0, made.shape[1] - 1, columns).round().long()
    cells = torch.nn.functional.pad(made[picked][:, times], (0, 0, 0, 2, 0, 2), value=255)
    pictures = rearrange(cells, "clips times h w c -> (clips h) (times w) c").numpy()
    sheet = cv2.copyMakeBorder(pictures, 0, 0, 0, 540, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for row, index in enumerate(picked):
        place = pictures.shape[1] + 6, row * cells.shape[2] + made.shape[2] // 2
        cv2.putText(sheet, chosen[index].caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    write_png(path, sheet)


if __name__ == "__main__":
    main()
