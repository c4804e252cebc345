"""A micro miniature is trained, resumed, exported and loaded: what is exported computes what was trained."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from comfyui import folder_table_kept
from miniature import colours, evaluate, experts, export, latents, loras, recipe, scenes, text, training, vae
from miniature.recipe import EXPERTS, LORAS, RECIPES, Length, Recipe

MICRO = RECIPES["micro"]


@pytest.fixture(scope="module")
def trained(pack: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipe]:
    """The micro recipe, every part trained for two steps."""
    patch = pytest.MonkeyPatch()
    patch.setattr(recipe, "FOLDER", tmp_path_factory.mktemp("miniature"))
    vae.train_vae(MICRO)
    vae.finish_vae(MICRO)
    latents.write_shards(MICRO)
    for name in EXPERTS:
        experts.train_expert(MICRO, name)
    for name in LORAS:
        loras.train_lora(MICRO, name)
    yield MICRO
    patch.undo()


@pytest.fixture(scope="module")
def exported(trained: Recipe, pack: ModuleType) -> Iterator[Path]:
    """A models folder with the exported files, which ComfyUI finds."""
    folder = trained.folder() / "models"
    export.export(trained, folder, fp8=True)
    with folder_table_kept() as find_models:
        for kind in ("diffusion_models", "text_encoders", "vae", "loras"):
            find_models(kind, folder / kind)
        yield folder


@pytest.fixture(scope="module")
def turn(trained: Recipe) -> torch.Tensor:
    return colours.turn(trained, torch.load(vae.finished(trained), weights_only=True))


def test_every_part_has_a_finite_loss(trained):
    for part in ("vae", *EXPERTS, *(f"lora_{name}" for name in LORAS)):
        lines = (trained.folder() / f"{part}.jsonl").read_text().splitlines()
        assert 0 < json.loads(lines[-1])["loss"] < 10, part


def test_steps_lower_the_loss_of_an_expert(trained):
    net, data, nothing = experts.new_expert(trained, 1), latents.Latents(trained, "plain"), experts.empty_prompt(trained)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    losses = []
    for step in range(30):
        loss = experts.flow_loss(net, data, nothing, trained, "low", 8, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_training_goes_on_after_a_stop_as_if_there_had_been_none(tmp_path, monkeypatch):
    def until(stop: int, name: str) -> dict[str, torch.Tensor]:
        net = torch.nn.Linear(3, 3)
        with torch.no_grad():
            net.weight.copy_(torch.eye(3))
            net.bias.zero_()

        def loss(step: int) -> torch.Tensor:
            if step == stop:
                raise InterruptedError
            return net(torch.randn(4, 3, generator=recipe.generator(step))).square().mean()

        return training.train(net, loss, Length(20, 4, 1e-2), tmp_path / f"{name}.pt")

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    straight = until(99, "straight")
    for stop in (7, 12):
        with pytest.raises(InterruptedError):
            until(stop, "stopped")
    stopped = until(99, "stopped")
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_noise_levels_keep_to_each_experts_side_of_the_boundary():
    draw = recipe.generator(1)
    high, low = (torch.cat([experts.noise_levels(name, 32, draw) for _ in range(20)]) for name in EXPERTS)
    assert high.min() >= 0.875 and high.max() <= 1
    assert low.min() >= 0 and low.max() < 0.8751


def test_the_exported_vae_has_wans_latents_and_shows_the_same_pictures(trained):
    import comfy.latent_formats
    wan = comfy.latent_formats.Wan21()
    weights = training.averaged(trained.folder() / "vae.pt")
    before, after = vae.loaded(weights, trained.vae_dim), vae.loaded(vae.conforming(trained, weights, count=32), trained.vae_dim)
    pictures = vae.pictures_of(scenes.clips(scenes.random_scenes(32, 5), 5, trained.size))
    latent = after.encode(pictures)
    normal = wan.process_in(latent)
    assert normal.mean(dim=(0, 2, 3, 4)).abs().max() < 0.5
    assert (normal.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 0.3
    torch.testing.assert_close(after.decode(latent[:1]), before.decode(before.encode(pictures[:1])), atol=2e-3, rtol=1e-3)


def test_the_short_text_states_are_those_of_the_packs_text_encoder(exported, pack):
    name = export.TEXT_ENCODER.format("fp16")
    clip = pack.nodes.host.models.files.load_text_encoder(name, "cpu")
    prompt = scenes.examples(1, 8)[0].caption
    whole = pack.nodes.host.text.encode(clip, prompt)[0][0].float()
    short = text.ShortStates(text.encoder(MICRO.seed), torch.device("cpu")).of([prompt]).float()
    assert whole.shape == (1, text.TOKENS, text.WIDTH)
    torch.testing.assert_close(whole[:, : text.LONGEST, : text.USED], short, atol=0.02, rtol=0.02)
    assert not whole[:, text.LONGEST :].any() and not whole[..., text.USED :].any()


@pytest.mark.parametrize("kind", ["fp16", "fp8_scaled"])
def test_a_loaded_expert_computes_what_was_trained_on_turned_latents(exported, pack, trained, turn, kind: str):
    draw = recipe.generator(4)
    latent, sigma = torch.randn(2, 16, 5, 4, 4, generator=draw), torch.tensor([0.95, 0.9])
    states = text.ShortStates(text.encoder(MICRO.seed), torch.device("cpu")).of([example.caption for example in scenes.examples(2, 8)]).float()
    with torch.no_grad():
        wanted = experts.predict(experts.trained_expert(trained, "high"), latent, sigma, states)
    latent, wanted = colours.turned(latent, turn), colours.turned(wanted, turn)
    patcher = pack.nodes.host.models.files.load_expert(export.EXPERT.format("high", kind), "default")
    import comfy.model_management
    comfy.model_management.load_models_gpu([patcher])
    full = torch.nn.functional.pad(states, (0, text.WIDTH - text.USED, 0, text.TOKENS - text.LONGEST))
    with torch.no_grad():
        velocity = (latent - patcher.model.apply_model(latent, sigma, c_crossattn=full).float()) / sigma[:, None, None, None, None]
    tolerance = 0.01 if kind == "fp16" else 0.1
    assert (velocity - wanted).norm() <= tolerance * wanted.norm()


def test_a_lora_file_at_scale_1_is_what_was_trained(trained):
    net = loras.attach(experts.trained_expert(trained, "high"), trained.rank, trained.seed)
    learned = training.averaged(trained.folder() / "lora_striped_high.pt")
    net.load_state_dict(learned, strict=False)
    base, file = experts.trained_expert(trained, "high"), loras.lora_file(trained, "striped_high")
    for module in ("blocks.0.self_attn.q", "blocks.0.cross_attn.o", "blocks.0.ffn.2"):
        key = f"diffusion_model.{module}.lora_"
        change = file[f"{key}B.weight"] @ file[f"{key}A.weight"]
        torch.testing.assert_close(net.get_submodule(module).weight, base.get_parameter(f"{module}.weight") + change)


@pytest.mark.parametrize("kind", ["plain", "loras"])
def test_the_evaluation_runs_through_the_packs_own_code(exported, kind: str):
    chosen = scenes.examples(2, 3)
    setting = dataclasses.replace(evaluate.NONE, steps=2)
    if kind == "loras":
        setting = dataclasses.replace(setting, loras=(evaluate.STRIPED, evaluate.REVERSED, evaluate.FRAMED))
    made = evaluate.Miniature(exported, chosen).clips(setting)
    marks = evaluate.scores(chosen, made, scenes.PLAIN)
    assert made.shape == (2, 17, 64, 64, 3) and made.dtype == torch.uint8
    assert 0 <= marks.right["all"] <= 1


def test_true_clips_score_full_marks():
    chosen = scenes.examples(8, 3)
    assert evaluate.scores(chosen, evaluate.ground_truth(chosen), scenes.PLAIN).right["all"] == 1
