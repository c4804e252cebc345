"""Judge `acceleration` against computing every step, beside MagCache as published, on prompts that nobody tuned on.

    python dev.py miniature acceleration [--only NAME ...] [--prompts FILE] [--count N] [--out FOLDER] [--report FILE]

One factor at a time from the node's defaults, then ten combinations drawn at random. Each setting's numbers go into a file of their own as soon as
they are there; a second call goes on where the first one stopped, and measures again what the sampler's code has changed since. The settings were
found on prompts/tuning.txt; prompts/judging.txt is what this command reads.
"""

import argparse
import hashlib
import inspect
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import magcache
from comfyui import ROOT
from engine.sampling import solvers
from engine.sampling.experts import Guidance
from engine.sampling.forecast import VelocityForecast
from engine.sampling.plan import plan_of
from miniature import export
from miniature.evaluate import FRAMED, MAGCACHE, NONE, REVERSED, STRIPED, Miniature, Setting
from miniature.scenes import Example, scene_of

PROMPTS = Path(__file__).parent / "prompts" / "judging.txt"
RESULTS = ROOT / ".dev" / "acceleration"
WAYS = (MAGCACHE, "regular")
STEPS, SHIFTS, SOLVERS = (20, 30, 40), (3.0, 8.0, 12.0), ("dpm++", "euler")
GUIDANCES = ((1.0, 1.0), (5.0, 6.0), (6.0, 5.0))
LORAS = {"striped": (STRIPED,), "reversed": (REVERSED,), "framed": (FRAMED,)}
COMBINATIONS, COMBINATION_SEED = 10, 21


def settings() -> dict[str, Setting]:
    """What is judged, by name, `none` each."""
    one_by_one = {"the defaults": NONE}
    one_by_one |= {f"{steps} steps": replace(NONE, steps=steps) for steps in STEPS}
    one_by_one |= {f"shift {shift:g}": replace(NONE, shift=shift) for shift in SHIFTS}
    one_by_one |= {solver: replace(NONE, solver=solver) for solver in SOLVERS}
    one_by_one |= {f"guidance {high:g}, {low:g}": replace(NONE, guidance=(high, low)) for high, low in GUIDANCES}
    one_by_one |= {f"LoRA {name}": replace(NONE, loras=loras) for name, loras in LORAS.items()}
    return one_by_one | {name_of(setting): setting for setting in combinations()}


def combinations() -> Iterator[Setting]:
    chance = random.Random(COMBINATION_SEED)
    for _ in range(COMBINATIONS):
        yield Setting(chance.choice((27, *STEPS)), chance.choice((5.0, *SHIFTS)), chance.choice(((3.5, 4.0), *GUIDANCES)),
                      chance.choice(("unipc", *SOLVERS)), loras=chance.choice(((), *LORAS.values())))


def name_of(setting: Setting) -> str:
    lora = "".join(f", {style}" for style, _, _ in setting.loras)
    return f"{setting.steps} {setting.solver}, shift {setting.shift:g}, guidance {setting.guidance[0]:g}, {setting.guidance[1]:g}{lora}"


@dataclass(frozen=True)
class Measured:
    """One way in one setting: share of the calls of `none`, and per clip dB of the decoded frames and relative L2 distance of the latent."""

    share: float
    psnr: tuple[float, ...]
    distance: tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of settings; default all")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="a file with a caption of the miniature on each line")
    parser.add_argument("--count", type=int, help="only the first prompts")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="values of acceleration, and magcache")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers are kept")
    parser.add_argument("--report", type=Path, help="write the table in Markdown here")
    options = parser.parse_args()
    chosen = {name: setting for name, setting in settings().items() if not options.only or name in options.only}
    if missing := set(options.only) - set(chosen):
        parser.error(f"{', '.join(sorted(missing))}: no such setting. There are: {'; '.join(settings())}.")
    examples = [Example(scene_of(line), line) for line in options.prompts.read_text(encoding="utf-8").splitlines()][: options.count]
    results = Results(options.out, Miniature(export.MODELS, examples))
    table = [row for name, setting in chosen.items() for row in results.rows(name, setting, options.ways)]
    text = "\n".join([HEAD, *table])
    print(f"\n{text}")
    if options.report:
        options.report.write_text(REPORT.format(count=len(examples), table=text), encoding="utf-8")


class Results:
    """What was measured, kept in a folder, and the miniature that measures the rest."""

    def __init__(self, folder: Path, miniature: Miniature) -> None:
        self.folder, self.miniature = folder, miniature
        self.folder.mkdir(parents=True, exist_ok=True)

    def rows(self, name: str, setting: Setting, ways: Sequence[str]) -> list[str]:
        """Lines of the table, each way against MagCache where that is among them."""
        measured = self.of(setting, ways)
        rows = [row(name if way == ways[0] else "", way, measured[way], measured.get(MAGCACHE)) for way in ways]
        print("\n".join(rows), flush=True)
        return rows

    def of(self, setting: Setting, ways: Sequence[str]) -> dict[str, Measured]:
        kept = {way: self.file_of(replace(setting, acceleration=way)) for way in ways}
        if todo := [way for way, path in kept.items() if not path.exists()]:
            latents = self.miniature.latents(setting)
            reference = self.miniature.decoded(latents)
            for way in todo:
                result = self.measure(replace(setting, acceleration=way), latents, reference)
                kept[way].write_text(json.dumps(asdict(result)), encoding="utf-8")
        return {way: Measured(**json.loads(path.read_text(encoding="utf-8"))) for way, path in kept.items()}

    def measure(self, setting: Setting, reference: torch.Tensor, clips: torch.Tensor) -> Measured:
        latents = self.miniature.latents(setting)
        share = self.miniature.model_calls[setting] / self.miniature.all_calls[setting]
        return Measured(share, psnr_of_each(self.miniature.decoded(latents), clips), distance_of_each(latents, reference))

    def file_of(self, setting: Setting) -> Path:
        key = [asdict(setting), [example.caption for example in self.miniature.chosen], followed(setting)]
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"


def followed(setting: Setting) -> list[Any]:
    """What a way's numbers follow from, beside the setting: the steps that are left out, and the code of what takes their place."""
    code = [Path(inspect.getfile(solvers)).read_text(encoding="utf-8")]
    if setting.acceleration == MAGCACHE:
        return [magcache.planned(setting.schedule(), setting.boundary), inspect.getsource(magcache.ResidualCache), *code]
    plan = plan_of(setting.schedule(), setting.boundary, Guidance(*setting.guidance), setting.acceleration)
    return [[step.trend for step in plan.steps], inspect.getsource(VelocityForecast), *code]


def psnr_of_each(made: torch.Tensor, reference: torch.Tensor) -> tuple[float, ...]:
    """Decibels between clips (N, T, H, W, 3) of bytes; 99 for equal ones."""
    error = (made.float() - reference.float()).square().flatten(1).mean(dim=1)
    return tuple((10 * torch.log10(255**2 / error)).clamp(max=99.0).tolist())


def distance_of_each(made: torch.Tensor, reference: torch.Tensor) -> tuple[float, ...]:
    """Relative L2 distances between latents (N, ...)."""
    return tuple(((made - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)).tolist())


HEAD = ("| setting | way | calls | PSNR, mean | worst clip | rel. L2, mean | worst | better by (dB) | clips better | |\n"
        "|---|---|---|---|---|---|---|---|---|---|")


def row(name: str, way: str, made: Measured, peer: Measured | None) -> str:
    psnr, distance = torch.tensor(made.psnr), torch.tensor(made.distance)
    cells = [name, way, f"{made.share:.3f}", f"{psnr.mean():.1f}", f"{psnr.min():.1f}", f"{distance.mean():.4f}", f"{distance.max():.4f}"]
    if peer is None or way == MAGCACHE:
        return "| " + " | ".join([*cells, "", "", ""]) + " |"
    gain = psnr - torch.tensor(peer.psnr)
    error = gain.std() / len(gain) ** 0.5
    holds = made.share < peer.share and psnr.mean() >= torch.tensor(peer.psnr).mean() and psnr.min() >= min(peer.psnr)
    cells += [f"{gain.mean():+.1f} ± {error:.1f}", f"{int((gain > 0).sum())} of {len(gain)}", "" if holds else "**no**"]
    return "| " + " | ".join(cells) + " |"


REPORT = """# What acceleration loses, on prompts nobody tuned on

Written by `python dev.py miniature acceleration --report tests/miniature/ACCELERATION.md`: {count} prompts (`prompts/judging.txt`), each way against
`none` with the same seeds. "calls" is the share of the model calls of `none`; "better by" is the mean difference to MagCache as published, paired by
clip, with its standard error; **no** in the last column marks a setting in which `regular` makes as many calls, or is further from `none` in the mean
or in the worst clip.

The plans of DPM-Solver++ and of guidance above 4.25 forecast less since a first run of this command, in which three settings had as many calls as
MagCache, or one clip further off; of these the prompts are not quite unseen any more.

{table}
"""


if __name__ == "__main__":
    main()
