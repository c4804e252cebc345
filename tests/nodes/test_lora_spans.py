"""LoRAs by step and an opening: a run is the one that is composed by hand from experts patched anew in each step, and costs no second expert."""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from sampling_runs import SHAPE, Prompts, noise, relative_error

SHIFT, BOUNDARY, STEPS = 5.0, 0.875, 6  # three steps of each expert
Pair = tuple[Any, Any]
Spans = dict[str, tuple[int, int]]  # first and last step of each LoRA


@pytest.fixture
def loras(lora_folder: Path) -> list[str]:
    """Three files for both experts."""
    names = ["style.safetensors", "distilled.safetensors", "detail.safetensors"]
    for seed, name in enumerate(names, 41):
        save_file(tiny_weights.lora(seed), lora_folder / name)
    return names


class Runs:
    """Runs of a pair of experts from the same noise, and how LoRAs get on it."""

    def __init__(self, pack: ModuleType, prompts: Prompts) -> None:
        self.run, self.loras = pack.nodes.host.sampling.run, pack.nodes.host.models.lora
        self.experts, self.engine = pack.nodes.engine.sampling.experts, pack.nodes.engine
        self.expert_class = pack.nodes.host.sampling.expert.Expert
        self.conditioning = [[[prompt[None], {}]] for prompt in prompts]

    def patched(self, pair: Pair, spans: Spans) -> Pair:
        choices = [self.engine.lora.routing.LoraChoice(name, span=self.engine.spans.Span(*span)) for name, span in spans.items()]
        high, low, *_ = self.loras.apply(*pair, choices)
        return high, low

    def guider(self, pair: Pair, guidance: tuple[Any, ...] = (1.0, 1.0), acceleration: str = "none") -> Any:
        return self.run.guider(*pair, *self.conditioning, self.experts.Guidance(*guidance), SHIFT, acceleration, BOUNDARY)

    def sigmas(self, solver: str, steps: int = STEPS) -> torch.Tensor:
        return self.experts.Schedule(solver, steps, SHIFT).sigmas()

    def sampled(self, guider: Any, solver: str = "unipc", steps: int = STEPS, shape: Sequence[int] = SHAPE) -> torch.Tensor:
        start = torch.randn(shape, generator=torch.manual_seed(1))
        return guider.sample(start, torch.zeros(shape), self.run.solver(solver), self.sigmas(solver, steps), disable_pbar=True, seed=1)


@pytest.fixture
def runs(pack: ModuleType, prompts: Prompts) -> Runs:
    return Runs(pack, prompts)


def one_evaluation(x: torch.Tensor, t: float) -> Any:
    """A SAMPLER that asks the model once, at noise level t, and keeps what it says in `denoised`."""
    samplers = importlib.import_module("comfy.samplers")

    class Once(samplers.Sampler):  # type: ignore[name-defined]
        denoised: torch.Tensor

        def sample(self, model_wrap: Any, sigmas: torch.Tensor, extra_args: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
            self.denoised = model_wrap(x, x.new_full((len(x),), t), **extra_args)
            return self.denoised

    return Once()


# --- exactly what is composed by hand ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize("opening", [0, 2])
def test_a_run_with_spans_is_the_one_composed_of_patched_experts_step_by_step(runs: Runs, experts: Pair, loras: list[str], solver: str,
                                                                              opening: int) -> None:
    style, distilled, detail = loras
    spans = {style: (1, 0), distilled: (3, 0), detail: (2, 5)}
    guidance, later = (1.0, 2.0, opening, 3.5), [name for name in loras if name != style]
    made = runs.sampled(runs.guider(runs.patched(experts, spans), guidance), solver)

    sigmas, method = runs.sigmas(solver), runs.run.solver(solver).solver
    numbers = iter(range(1, STEPS + 1))

    def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
        number, t = next(numbers), method.timestep(sigma) / 1000
        on = {name: (1, 0) for name in later if number in runs.engine.spans.Span(*spans[name])}
        scale = 3.5 if number <= opening else None
        once = one_evaluation(x, t)
        pair = runs.patched(runs.patched(experts, {style: (1, 0)}), on)
        runs.guider(pair, (scale or 1.0, scale or 2.0)).sample(noise(), torch.zeros(SHAPE), once, sigmas[number - 1 : number + 1], seed=1)
        return once.denoised if t == sigma else x - sigma / t * (x - once.denoised)

    levels, start = sigmas.tolist(), noise()
    by_hand = method.solve(predict, start, levels, lambda *_: None, ())
    assert torch.equal(made, experts[0].model.process_latent_out(by_hand))
    assert relative_error(made, runs.sampled(runs.guider(runs.patched(experts, dict.fromkeys(spans, (1, 0))), guidance), solver)) > 1e-3


@pytest.mark.parametrize("acceleration", ["none", "regular"])
def test_without_spans_and_opening_no_bit_changes(runs: Runs, experts: Pair, loras: list[str], acceleration: str) -> None:
    pair, steps = runs.patched(experts, {loras[0]: (1, 0)}), 12
    plain = runs.sampled(runs.guider(pair, (3.5, 4.0), acceleration), steps=steps)
    assert torch.equal(runs.sampled(runs.guider(pair, (3.5, 4.0, 0, 9.0), acceleration), steps=steps), plain)
    assert torch.equal(runs.sampled(runs.guider(pair, (3.5, 4.0, 4, 3.5), acceleration), steps=steps), plain)


# --- beside everything that a MODEL can carry -----------------------------------------------------------------------------------------------------


def as_they_are(pair: Pair) -> Pair:
    return pair


def windowed(pair: Pair) -> Pair:
    """With core's context windows of 4 latent frames."""
    windows: Any = importlib.import_module("comfy.context_windows")
    clones = tuple(expert.clone() for expert in pair)
    for clone in clones:
        clone.model_options["context_handler"] = windows.IndexListContextHandler(
            context_schedule=windows.get_matching_context_schedule("standard_static"), fuse_method=windows.get_matching_fuse_method("pyramid"),
            context_length=4, context_overlap=1, dim=2)
        windows.create_prepare_sampling_wrapper(clone)
    return clones


@pytest.mark.parametrize("changed", [as_they_are, windowed])
@pytest.mark.parametrize("kind", ["experts", "packed_experts"])
def test_a_lora_by_step_is_the_lora_of_the_whole_run_where_its_steps_are_all(runs: Runs, request: pytest.FixtureRequest, loras: list[str],
                                                                             kind: str, changed: Callable[[Pair], Pair]) -> None:
    """Whatever else is put on the MODEL after it, and with weights that rest packed, as those of GGUF files do."""
    pair, shape = request.getfixturevalue(kind), (1, 16, 7, 4, 6)

    def sampled(*spans: tuple[int, int]) -> torch.Tensor:
        return runs.sampled(runs.guider(changed(runs.patched(pair, dict(zip(loras, spans, strict=False))))), shape=shape)

    whole, without = sampled((1, 0)), sampled()
    assert relative_error(sampled((1, STEPS)), whole) < 1e-4
    assert min(relative_error(sampled((1, 2)), other) for other in (whole, without)) > 1e-3
    assert torch.equal(sampled(), without)


def test_lora_hooks_go_on_beside_loras_by_step(runs: Runs, experts: Pair, loras: list[str]) -> None:
    hooks: Any = importlib.import_module("comfy.hooks")
    hook = hooks.create_hook_lora(tiny_weights.lora(51), 1.0, 0.0)
    runs.conditioning = [hooks.set_hooks_for_conditioning(cond, hook) for cond in runs.conditioning]
    by_span, whole, without = (runs.sampled(runs.guider(runs.patched(experts, spans)))
                               for spans in ({loras[0]: (1, STEPS)}, {loras[0]: (1, 0)}, {}))
    assert relative_error(by_span, whole) < 1e-3 < relative_error(without, whole)


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_samplers_of_core_on_our_guider_have_the_loras_of_the_step_they_have_reached(runs: Runs, experts: Pair, loras: list[str], name: str) -> None:
    samplers: Any = importlib.import_module("comfy.samplers")
    sigmas = runs.sigmas("euler")

    def sampled(spans: Spans, sampler: Any) -> torch.Tensor:
        guider = runs.guider(runs.patched(experts, spans), (1.0, 1.0, 2, 3.5))
        return guider.sample(noise(), torch.zeros(SHAPE), sampler, sigmas, disable_pbar=True, seed=1)

    spans, core = {loras[0]: (3, 0)}, samplers.sampler_object(name)
    made = sampled(spans, core)
    assert relative_error(made, sampled({loras[0]: (1, 0)}, core)) > 1e-3
    if name == "euler":
        assert relative_error(made, sampled(spans, runs.run.solver("euler"))) < 1e-5


def test_another_sampler_runs_the_loras_of_the_whole_run_and_says_what_it_left_out(runs: Runs, experts: Pair, loras: list[str],
                                                                                   caplog: pytest.LogCaptureFixture) -> None:
    samplers: Any = importlib.import_module("comfy.samplers")

    def sampled(spans: Spans) -> torch.Tensor:
        guider = samplers.CFGGuider(runs.patched(experts, spans)[0])
        guider.set_conds(*runs.conditioning)
        guider.set_cfg(1.0)
        return guider.sample(noise(), torch.zeros(SHAPE), samplers.sampler_object("euler"), runs.sigmas("euler"), disable_pbar=True, seed=1)

    plain = sampled({loras[0]: (1, 0)})
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sampled({loras[0]: (1, 0), loras[1]: (3, 0), loras[2]: (1, 2)}), plain)
    assert [f"{loras[1]} (from step 3), {loras[2]} (steps 1 to 2)" in record.message for record in caplog.records] == [True]
    caplog.clear()
    runs.sampled(runs.guider(runs.patched(experts, {loras[1]: (3, 0)})))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- what it costs --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spans", "loads"), [
    ([], 2), ([(1, 0)], 2), ([(4, 0)], 2), ([(3, 0)], 3), ([(1, 2), (1, 2)], 3), ([(1, 2), (3, 0)], 3), ([(2, 2)], 4), ([(2, 5)], 4)])
def test_an_expert_is_patched_anew_where_its_loras_change_and_nowhere_else(runs: Runs, experts: Pair, loras: list[str],
                                                                          spans: list[tuple[int, int]], loads: int,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    original = runs.expert_class.load

    def load(self: Any, start: Any) -> None:
        loaded.append(self)
        original(self, start)

    monkeypatch.setattr(runs.expert_class, "load", load)
    runs.sampled(runs.guider(runs.patched(experts, dict(zip(loras, spans, strict=False))), (1.0, 1.0, 2, 3.5)))
    assert len(loaded) == loads


def test_an_expert_stays_one_and_is_itself_again_after_the_run(runs: Runs, experts: Pair, loras: list[str]) -> None:
    importlib.import_module("comfy.model_management").unload_all_models()
    before = [{name: tensor.clone() for name, tensor in expert.model.state_dict().items()} for expert in experts]
    pair = runs.patched(experts, {loras[0]: (1, 0), loras[1]: (2, 0), loras[2]: (1, 4)})
    assert all(patched.model is expert.model for patched, expert in zip(pair, experts, strict=True))
    runs.sampled(runs.guider(pair))
    importlib.import_module("comfy.model_management").unload_all_models()
    for expert, weights in zip(experts, before, strict=True):
        assert not expert.backup
        assert all(torch.equal(tensor, weights[name]) for name, tensor in expert.model.state_dict().items())


def test_the_weights_of_the_same_steps_are_known_again_in_the_next_run(runs: Runs, experts: Pair, loras: list[str]) -> None:
    spans = importlib.import_module(f"{runs.loras.__package__}.lora_spans")
    high, _ = runs.patched(experts, {loras[0]: (1, 2), loras[1]: (3, 0)})
    names = [[spans.with_loras_on(high, places).patches_uuid for places in ((0,), (1,), (0, 1), ())] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == 4 and names[0][3] == high.patches_uuid


def test_a_second_apply_adds_to_the_first(runs: Runs, experts: Pair, loras: list[str]) -> None:
    spans: Spans = {loras[0]: (1, 2), loras[1]: (2, 4)}
    at_once = runs.patched(experts, spans)
    one_by_one = runs.patched(runs.patched(experts, {loras[0]: spans[loras[0]]}), {loras[1]: spans[loras[1]]})
    assert torch.equal(runs.sampled(runs.guider(at_once)), runs.sampled(runs.guider(one_by_one)))


# --- what is said -------------------------------------------------------------------------------------------------------------------------------


def test_the_report_and_the_schedule_say_from_when_to_when(runs: Runs, experts: Pair, loras: list[str]) -> None:
    span = runs.engine.spans.Span
    choices = [runs.engine.lora.routing.LoraChoice(loras[0], span=span(3, 0)), runs.engine.lora.routing.LoraChoice(loras[1])]
    high, low, lines, _ = runs.loras.apply(*experts, choices)
    assert [", from step 3" in line for line in lines] == [True, True, False, False]
    plan = runs.guider((high, low), (1.0, 1.0, 2, 3.5)).plan(runs.run.solver("euler"), runs.sigmas("euler"))
    assert plan.describe() == ("6 steps: 3 high (t 1000..909) + 3 low (t 833..501), guidance 3.5 for 2 steps, then 1.0 / 1.0, 8 model calls; "
                               "high has style.safetensors on step 3")


def test_steps_beyond_the_run_are_refused_before_any_expert_is_loaded(runs: Runs, experts: Pair, loras: list[str],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.expert_class, "load", lambda self, start: pytest.fail("an expert was loaded"))
    with pytest.raises(ValueError, match=r"first_step of the LoRA style.safetensors is 9, beyond the run of 6 steps. Set it to 6 at most."):
        runs.sampled(runs.guider(runs.patched(experts, {loras[0]: (9, 0)})))
    with pytest.raises(ValueError, match=r"last_step of the LoRA style.safetensors is 8.*or to 0 for the end of the run"):
        runs.sampled(runs.guider(runs.patched(experts, {loras[0]: (2, 8)})))
    with pytest.raises(ValueError, match="opening_steps is 4, but the high-noise expert takes 3 of the 6 steps. Set it to 3 at most"):
        runs.sampled(runs.guider(experts, (1.0, 1.0, 4, 3.5)))
    guider = replace(runs.experts.Guidance(1.0, 1.0), opening_steps=1)
    with pytest.raises(ValueError, match="opening_steps is 1, but the high-noise expert takes none of the 6 steps. Set it to 0"):
        runs.run.plan_for(runs.run.solver("unipc"), 0.5 * runs.sigmas("unipc"), BOUNDARY, guider, "none")
