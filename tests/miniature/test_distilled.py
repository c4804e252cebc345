"""The distillation aims at where the full run goes, and its files do in the pack what was trained."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from comfyui import folder_table_kept
from engine.sampling.schedules import euler_sigmas
from miniature import distilled, experts, export, loras, recipe, text, training
from miniature.recipe import DISTILLED, EXPERTS, RECIPES, Recipe

MICRO = RECIPES["micro"]
SHAPE = (16, 5, 4, 4)


@pytest.fixture(scope="module")
def exported(pack: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A models folder with micro experts that were not trained, which ComfyUI finds; what is trained on them lies beside it."""
    patch = pytest.MonkeyPatch()
    patch.setattr(recipe, "FOLDER", tmp_path_factory.mktemp("distilled"))
    folder = MICRO.folder() / "models"
    export.written(((f"diffusion_models/{export.EXPERT.format(name, 'fp16')}", export.half(experts.with_full_text(random_expert(seed).state_dict())))
                    for seed, name in enumerate(EXPERTS)), folder)
    with folder_table_kept() as find_models:
        for kind in ("diffusion_models", "loras"):
            find_models(kind, folder / kind)
        yield folder
    patch.undo()


@pytest.fixture(scope="module")
def trained(exported: Path) -> Recipe:
    """The micro recipe with trajectories and the distilled pair, in the models folder as well."""
    distilled.write_trajectories(MICRO, models=exported)
    for name in DISTILLED:
        distilled.train_distilled(MICRO, name, exported)
    export.written(export.lora_files(MICRO, DISTILLED), exported)
    return MICRO


def random_expert(seed: int) -> torch.nn.Module:
    net = experts.new_expert(MICRO, seed)
    torch.nn.init.normal_(net.get_parameter("head.head.weight"), std=0.05, generator=recipe.generator(seed))
    return net


class Straight:
    """A network whose velocity is `towards` of the prompt's first number, at every noise level."""

    def __init__(self, towards: float) -> None:
        self.towards = towards

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor, **_: object) -> torch.Tensor:
        return self.towards * states[:, 0, 0].view(-1, 1, 1, 1, 1).expand_as(latents)


def test_a_trajectory_goes_with_each_experts_guidance_and_is_kept_at_the_four_steps_levels(pack):
    nets: Any = {"high": Straight(2.0), "low": Straight(3.0)}
    noise, states = torch.randn(2, *SHAPE, generator=recipe.generator(1)), torch.ones(2, text.LONGEST, text.USED)
    made = distilled.trajectories(nets, noise, states, torch.full((1, text.LONGEST, text.USED), 0.5))
    levels = euler_sigmas(distilled.FULL_STEPS, experts.SHIFT)
    switch = next(float(level) for level in levels if level < experts.BOUNDARY)
    high, low = 2.0 * (0.5 + 0.5 * 3.5), 3.0 * (0.5 + 0.5 * 4.0)
    for index, level in enumerate(euler_sigmas(distilled.STEPS, experts.SHIFT).tolist()):
        moved = high * (1 - max(level, switch)) + low * max(0.0, switch - level)
        torch.testing.assert_close(made[:, index], noise - moved, atol=1e-4, rtol=1e-5)


def test_a_network_that_is_exactly_right_has_no_loss_and_any_other_has_one(tmp_path):
    """Latents sigma^2 n: from level s to level r the velocity is (s + r) n, x (s + r) / s^2."""
    sigmas, noise = euler_sigmas(distilled.STEPS, experts.SHIFT), torch.randn(3, 1, *SHAPE, generator=recipe.generator(2))
    path = tmp_path / "one.pt"
    torch.save({"latents": noise * sigmas.square().view(1, -1, 1, 1, 1, 1), "states": torch.zeros(3, text.LONGEST, text.USED)}, path)
    data, following = distilled.Trajectories([path]), dict(zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False))

    def right(latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor, **_: object) -> torch.Tensor:
        here = [min(following, key=lambda level: abs(level - t)) for t in (timestep / 1000).tolist()]
        return latents * torch.tensor([(s + following[s]) / s**2 for s in here]).view(-1, 1, 1, 1, 1)

    def off_by_one(*arguments: Any, **options: Any) -> torch.Tensor:
        return right(*arguments, **options) + 1

    exact, wrong = (lambda expert, step, net=net: float(distilled.distillation_loss(net, data, MICRO, expert, step)) for net in (right, off_by_one))
    for name in EXPERTS:
        assert max(exact(name, step) for step in range(20)) < 1e-10
        assert wrong(name, 0) == pytest.approx(1, abs=1e-4)


def test_each_expert_learns_its_own_two_steps(trained):
    data = distilled.Trajectories(distilled.shards(trained))
    levels = {name: set(data.batch(name, 64, recipe.generator(3))[1].tolist()) for name in EXPERTS}
    assert levels["high"] | levels["low"] == set(data.sigmas[:-1].tolist())
    assert min(levels["high"]) >= experts.BOUNDARY > max(levels["low"]) and len(levels["high"]) == len(levels["low"]) == 2


def test_training_lowers_the_loss(trained, exported):
    data = distilled.Trajectories(distilled.shards(trained))
    for name, expert in DISTILLED.items():
        net = loras.attach(distilled.exported_expert(trained, expert, exported), trained.rank, trained.seed)
        before = sum(distilled.distillation_loss(net, data, trained, expert, step).item() for step in range(5))
        net.load_state_dict(training.averaged(trained.folder() / f"lora_{name}.pt"), strict=False)
        after = sum(distilled.distillation_loss(net, data, trained, expert, step).item() for step in range(5))
        assert after < before
        assert json.loads((trained.folder() / f"lora_{name}.jsonl").read_text().splitlines()[-1])["step"] == trained.distilled.steps


def test_the_pair_at_scale_1_in_the_pack_is_what_was_trained(trained, exported, pack):
    import comfy.model_management
    files, lora = pack.nodes.host.models.files, pack.nodes.host.models.lora
    plain = [files.load_expert(export.EXPERT.format(name, "fp16"), "default") for name in EXPERTS]
    choice = pack.nodes.engine.lora.routing.LoraChoice(export.LORA.format("distilled", "high"), 1.0, "auto")
    patched = dict(zip(EXPERTS, lora.apply(*plain, [choice])[:2], strict=True))
    draw = recipe.generator(4)
    latent, sigma, states = torch.randn(2, *SHAPE, generator=draw), torch.tensor([0.95, 0.9]), torch.randn(2, text.LONGEST, text.USED, generator=draw)
    full = torch.nn.functional.pad(states, (0, text.WIDTH - text.USED, 0, text.TOKENS - text.LONGEST))
    for name, expert in DISTILLED.items():
        net = distilled.exported_expert(trained, expert, exported)
        with torch.no_grad():
            before = experts.predict(net, latent, sigma, states)
            loras.attach(net, trained.rank, trained.seed).load_state_dict(training.averaged(trained.folder() / f"lora_{name}.pt"), strict=False)
            wanted = experts.predict(net, latent, sigma, states)
            comfy.model_management.load_models_gpu([patched[expert]])
            velocity = (latent - patched[expert].model.apply_model(latent, sigma, c_crossattn=full).float()) / sigma.view(-1, 1, 1, 1, 1)
        assert (velocity - wanted).norm() < 0.05 * (wanted - before).norm()
