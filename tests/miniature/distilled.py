"""A distilled pair: LoRAs with which four steps without guidance shall lead where many steps with guidance lead.

Plain regression on the exported miniature's own trajectories: at each noise level of the four steps, the velocity that leads straight to where the
trajectory is at the next one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file

from engine.sampling import solvers
from engine.sampling.experts import is_high_noise
from engine.sampling.schedules import TRAIN_TIMESTEPS, euler_sigmas
from miniature import export, text
from miniature.experts import BOUNDARY, SHIFT, empty_prompt, new_expert, predict
from miniature.loras import attach
from miniature.recipe import DISTILLED, EXPERTS, STYLES, Recipe, device, generator
from miniature.scenes import FRAMES, examples
from miniature.training import mixed_precision, train

STEPS, FULL_STEPS = 4, 28  # the levels of the one are among those of the other
GUIDANCE = {"high": 3.5, "low": 4.0}  # what the pair learns to do without
AT_ONCE = 64  # trajectories that are computed together and lie in one file
Expert = torch.nn.Module


def expert_at(sigma: float) -> str:
    return "high" if is_high_noise(sigma * TRAIN_TIMESTEPS, BOUNDARY) else "low"


def exported_expert(recipe: Recipe, name: str, models: Path = export.MODELS) -> Expert:
    """An exported expert for the short text states, in float32."""
    weights = {key: tensor.float() for key, tensor in load_file(models / "diffusion_models" / export.EXPERT.format(name, "fp16")).items()}
    weights["text_embedding.0.weight"] = weights["text_embedding.0.weight"][:, : text.USED]
    net = new_expert(recipe)
    net.load_state_dict(weights)
    return net.requires_grad_(False)


# --- trajectories -----------------------------------------------------------------------------------------------------------------


def shards(recipe: Recipe) -> list[Path]:
    return [recipe.folder() / "trajectories" / f"{first:06d}.pt" for first in range(0, recipe.trajectories, AT_ONCE)]


def write_trajectories(recipe: Recipe, part: int = 0, parts: int = 1, *, models: Path = export.MODELS) -> None:
    """Write the files that are not there yet; `part` of `parts` processes does every parts-th."""
    missing = [(index, path) for index, path in list(enumerate(shards(recipe)))[part::parts] if not path.exists()]
    if not missing:
        return
    experts = {name: exported_expert(recipe, name, models) for name in EXPERTS}
    nothing, encoder = empty_prompt(recipe), text.ShortStates(text.encoder(recipe.seed), device())
    chosen = examples(recipe.trajectories, recipe.seed + 1000 * len(STYLES))  # of a seed that no style draws from
    for index, path in missing:
        states = encoder.of([example.caption for example in chosen[index * AT_ONCE : (index + 1) * AT_ONCE]])
        noise = torch.randn(len(states), 16, (FRAMES + 3) // 4, recipe.size // 8, recipe.size // 8, generator=generator(recipe.seed, index, 6))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save({"latents": trajectories(experts, noise.to(device()), states.float().to(device()), nothing).cpu(), "states": states}, unfinished)
        unfinished.replace(path)
        print(f"trajectories: {path.stem}", flush=True)


@torch.no_grad()
def trajectories(experts: dict[str, Expert], noise: torch.Tensor, states: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor:
    """Latents (B, STEPS + 1, 16, T, H, W) at the noise levels of the four steps, of FULL_STEPS Euler steps with guidance from noise
    (B, 16, T, H, W); in float32, since bfloat16 is off by 1 % in the end."""
    both = torch.cat([states, nothing.expand_as(states)])
    kept: list[torch.Tensor] = []

    def predict_x0(x: torch.Tensor, sigma: float) -> torch.Tensor:
        name = expert_at(sigma)
        velocity, without = predict(experts[name], x.repeat(2, 1, 1, 1, 1), x.new_full((len(both),), sigma), both).chunk(2)
        return x - sigma * torch.lerp(without, velocity, GUIDANCE[name])

    def keep(step: int, x0: torch.Tensor, x: torch.Tensor) -> None:
        if step % (FULL_STEPS // STEPS) == 0:
            kept.append(x)

    last = solvers.euler(predict_x0, noise, euler_sigmas(FULL_STEPS, SHIFT).tolist(), keep)
    return torch.stack([*kept, last], dim=1)


# --- training ---------------------------------------------------------------------------------------------------------------------


class Trajectories:
    """Latents (N, STEPS + 1, 16, T, H, W) of all trajectories, and the text states (N, LONGEST, USED) of their captions."""

    def __init__(self, paths: Sequence[Path]) -> None:
        loaded = [torch.load(path, weights_only=True) for path in paths]
        self.latents, self.states = (torch.cat([entry[name] for entry in loaded]) for name in ("latents", "states"))
        self.sigmas = euler_sigmas(STEPS, SHIFT)

    def batch(self, expert: str, size: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (B, 16, T, H, W), sigma (B,), states, and the velocity from x to the next level, of random trajectories at the expert's levels."""
        own = torch.tensor([level for level, sigma in enumerate(self.sigmas[:-1].tolist()) if expert_at(sigma) == expert])
        chosen = torch.randint(len(self.latents), (size,), generator=draw)
        level = own[torch.randint(len(own), (size,), generator=draw)]
        here, there = self.latents[chosen, level], self.latents[chosen, level + 1]
        length = self.sigmas[level] - self.sigmas[level + 1]
        velocity = (here - there) / rearrange(length, "b -> b 1 1 1 1")
        x, sigma, states, wanted = (part.float().to(device()) for part in (here, self.sigmas[level], self.states[chosen], velocity))
        return x, sigma, states, wanted


def distillation_loss(net: Expert, data: Trajectories, recipe: Recipe, expert: str, step: int) -> torch.Tensor:
    """Mean square error of the velocity."""
    x, sigma, states, wanted = data.batch(expert, recipe.distilled.batch, generator(recipe.seed, step, 7))
    with mixed_precision():
        velocity = predict(net, x, sigma, states)
    return (velocity.float() - wanted).square().mean()


def train_distilled(recipe: Recipe, name: str, models: Path = export.MODELS) -> None:
    """Train one of DISTILLED on the trajectories."""
    expert = DISTILLED[name]
    net, data = attach(exported_expert(recipe, expert, models), recipe.rank, recipe.seed), Trajectories(shards(recipe))
    train(net, lambda step: distillation_loss(net, data, recipe, expert, step), recipe.distilled, recipe.folder() / f"lora_{name}.pt")
