"""Experts in quantised files: each format loads, samples and takes LoRAs, which stay beside the weights unless the user wants them merged."""

import gc
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import quantised_weights
from quantised_weights import FORMATS, PLAIN
from sampling_runs import SHAPE, Prompts, relative_error
from tiny_weights import Weights

GUIDED, STEPS, SEEDS = (3.5, 4.0), 4, (1, 2, 3)
FILES = tuple(f"style_{number}.safetensors" for number in range(4))
MOST = 1.2  # times the error that the format has without LoRAs
Pair = tuple[Any, Any]


class Runs:
    """The pair of experts in any format, with LoRAs on it, sampled."""

    def __init__(self, pack: ModuleType, models: Path, weights: tuple[Weights, Weights], prompts: Prompts) -> None:
        self.pack, self.models, self.weights = pack, models, weights
        self.positive, self.negative = ([[prompt[None], {}]] for prompt in prompts)
        self.pairs: dict[str, Pair] = {}
        self.files: list[Path] = []

    def pair(self, name: str) -> Pair:
        """Experts of a format through our loader, each loaded once; the test is skipped where ComfyUI does not read it."""
        if lacking := quantised_weights.missing(name):
            pytest.skip(lacking)
        if name not in self.pairs:
            high, low = (self.load(name, side, weights) for side, weights in zip(("high", "low"), self.weights, strict=True))
            self.pairs[name] = high, low
        return self.pairs[name]

    def load(self, name: str, side: str, weights: Weights) -> Any:
        self.files.append(self.models / "diffusion_models" / f"{name}_{side}.safetensors")
        save_file(quantised_weights.quantised(weights, name), self.files[-1])
        return self.pack.nodes.host.models.files.load_expert(self.files[-1].name, dtype_to_rest_in(name))

    def with_loras(self, pair: Pair, files: tuple[str, ...], merged: bool = False, span: tuple[int, int] = (1, 0)) -> Pair:
        engine = self.pack.nodes.engine
        choices = [engine.lora.routing.LoraChoice(file, 1.0, "auto", engine.spans.Span(*span)) for file in files]
        high, low, *_ = self.pack.nodes.host.models.lora.apply(*pair, choices, merged)
        return high, low

    def sampled(self, pair: Pair, seeds: tuple[int, ...] = SEEDS, positive: Any = None) -> torch.Tensor:
        run, experts = self.pack.nodes.host.sampling.run, self.pack.nodes.engine.sampling.experts
        guider = run.guider(*pair, positive or self.positive, self.negative, experts.Guidance(*GUIDED), 5.0, "none", 0.875)
        with torch.no_grad():
            return torch.cat([run.sample(guider, {"samples": torch.zeros(SHAPE)}, seed, experts.Schedule("unipc", STEPS, 5.0))[0]["samples"]
                              for seed in seeds])


def dtype_to_rest_in(name: str) -> str:
    """On a CPU core widens plain float8 files unless it is told."""
    return name.replace("plain float8", "fp8") if name in PLAIN else "default"


@pytest.fixture(scope="module")
def runs(pack: ModuleType, models: Path, weights: tuple[Weights, Weights], prompts: Prompts) -> Iterator[Runs]:
    made = Runs(pack, models, weights, prompts)
    yield made
    for file in made.files:
        file.unlink()


@pytest.fixture
def loras(lora_folder: Path, weights: tuple[Weights, Weights]) -> tuple[str, ...]:
    """Four LoRAs on every matrix of the blocks; one alone changes the video by a seventh, all by a third."""
    for seed, name in enumerate(FILES):
        save_file(lora(seed, weights[0]), lora_folder / name)
    return FILES


def lora(seed: int, weights: Weights, rank: int = 4, ending: str = ".weight") -> Weights:
    generator, made = torch.Generator().manual_seed(seed), {}
    for key, weight in weights.items():
        if quantised_weights.is_quantised(key, weight) and key.endswith(ending):
            (outputs, inputs), path = weight.shape, f"diffusion_model.{key.removesuffix('.weight')}"
            made[f"{path}.lora_up.weight"] = torch.randn(outputs, rank, generator=generator) * 0.15 / (rank * inputs) ** 0.5
            made[f"{path}.lora_down.weight"] = torch.randn(rank, inputs, generator=generator)
    return made


@pytest.fixture(scope="module")
def exact(runs: Runs, experts: Pair) -> Callable[..., torch.Tensor]:
    """What the float32 experts make, with the first `count` LoRAs; computed once."""
    made: dict[int, torch.Tensor] = {}

    def of(count: int = 0) -> torch.Tensor:
        if count not in made:
            made[count] = runs.sampled(runs.with_loras(experts, FILES[:count]))
        return made[count]

    return of


@pytest.mark.parametrize("name", FORMATS)
def test_loras_add_no_error_of_their_own(runs: Runs, loras: tuple[str, ...], exact: Callable[..., torch.Tensor], name: str) -> None:
    pair = runs.pair(name)
    plain = runs.sampled(pair)
    error = relative_error(plain, exact())
    assert error < 0.12
    for count in (1, 4):
        assert relative_error(runs.sampled(runs.with_loras(pair, loras[:count])), exact(count)) <= MOST * error
    assert torch.equal(runs.sampled(pair), plain)  # nothing stays in the given experts


@pytest.mark.parametrize("name", ["fp8_scaled", "nvfp4"])
def test_merged_rounds_anew_and_only_where_the_user_says_so(runs: Runs, loras: tuple[str, ...], exact: Callable[..., torch.Tensor],
                                                            name: str) -> None:
    pair = runs.pair(name)
    merged, beside = (runs.with_loras(pair, loras, merged=merged) for merged in (True, False))
    assert relative_error(runs.sampled(merged), exact(4)) > 1.1 * relative_error(runs.sampled(beside), exact(4))
    assert not merged[0].injections and merged[0].patches
    assert not beside[0].patches and len(beside[0].injections) == 1


def test_weights_that_are_not_quantised_are_patched_as_ever(runs: Runs, experts: Pair, loras: tuple[str, ...]) -> None:
    beside, merged = (runs.with_loras(experts, loras, merged=merged) for merged in (False, True))
    assert not beside[0].injections
    assert beside[0].patches.keys() == merged[0].patches.keys()
    assert torch.equal(runs.sampled(beside), runs.sampled(merged))


def test_loras_on_clones_of_clones_add_up(runs: Runs, loras: tuple[str, ...]) -> None:
    pair = runs.pair("fp8_scaled")
    first = runs.with_loras(pair, loras[:1])
    once = runs.sampled(first, (1,))
    both = runs.sampled(runs.with_loras(first, loras[1:2]), (1,))
    assert relative_error(both, runs.sampled(runs.with_loras(pair, loras[:2]), (1,))) < 1e-4
    assert torch.equal(runs.sampled(first, (1,)), once)


def test_patching_a_clone_leaves_the_loaded_one_alone(runs: Runs, loras: tuple[str, ...]) -> None:
    """Core takes what hangs in a model out and in again while it adds patches to a clone of it."""
    import comfy.model_management
    import comfy.patcher_extension
    first = runs.with_loras(runs.pair("fp8_scaled"), loras[:1])[0]
    comfy.model_management.load_models_gpu([first, *first.get_nested_additional_models()])
    second = runs.pack.nodes.host.models.patches.patched(first, [(1.0, [])])
    runs.pack.nodes.host.models.on_the_fly.add_on_the_fly(second, {})
    third = second.clone()
    third.add_patches({"diffusion_model.head.head.bias": ("diff", (torch.zeros(64),))})
    assert layers_with_loras(first) == 20
    comfy.model_management.load_models_gpu([runs.pair("fp8_scaled")[0]])
    assert layers_with_loras(first) == 0


def test_a_layer_that_was_compiled_has_them_too(runs: Runs, loras: tuple[str, ...]) -> None:
    import comfy.model_management
    plain, _ = pair = runs.pair("fp8_scaled")
    patched, layer = runs.with_loras(pair, loras[:1])[0], plain.model.diffusion_model.blocks[0].self_attn.q
    compiled, x = torch.compile(layer, backend="eager"), torch.randn(1, 8, 128)
    with torch.no_grad():
        without = compiled(x)
        comfy.model_management.load_models_gpu([patched, *patched.get_nested_additional_models()])
        assert torch.equal(compiled(x), layer(x))
        assert relative_error(compiled(x), without) > 1e-3
        comfy.model_management.load_models_gpu([plain])
        assert torch.equal(compiled(x), without)


def test_they_leave_what_others_put_over_them(runs: Runs, loras: tuple[str, ...]) -> None:
    """As core's bypass of LoRAs does: it puts its own forward over the layer's, and what was there before back."""
    import comfy.model_management
    plain, _ = pair = runs.pair("fp8_scaled")
    patched, layer = runs.with_loras(pair, loras[:1])[0], plain.model.diffusion_model.blocks[0].self_attn.q
    x = torch.randn(1, 8, 128)
    with torch.no_grad():
        without = layer(x)
        for _ in range(2):
            comfy.model_management.load_models_gpu([patched, *patched.get_nested_additional_models()])
            below = layer.forward
            layer.forward = lambda x, below=below: below(x) + 1
            comfy.model_management.load_models_gpu([plain])
            assert torch.equal(layer(x), without + 1)
            layer.forward = below
            assert torch.equal(layer(x), without)
        del layer.forward


def test_what_is_put_in_goes_with_the_model(runs: Runs, loras: tuple[str, ...]) -> None:
    """Where a loaded MODEL is no more, core goes on with the one that it was cloned from, which would leave them in."""
    import comfy.model_management
    plain = runs.pair("fp8_scaled")[0]
    patched = runs.with_loras((plain, plain), loras[:1])[0]
    comfy.model_management.load_models_gpu([patched, *patched.get_nested_additional_models()])
    assert layers_with_loras(plain) == 20
    del patched
    gc.collect()
    assert layers_with_loras(plain) == 0


def layers_with_loras(model: Any) -> int:
    return sum(type(vars(module).get("forward")).__name__ == "Beside" for module in model.model.modules())


@pytest.mark.parametrize("name", ["fp8_scaled", "nvfp4", "int8 convrot"])
def test_loras_by_step_come_and_go(runs: Runs, loras: tuple[str, ...], name: str) -> None:
    pair = runs.pair(name)
    plain, whole, throughout, later = (runs.sampled(made, (1,)) for made in (
        pair, runs.with_loras(pair, loras[:2]), runs.with_loras(pair, loras[:2], span=(1, STEPS)), runs.with_loras(pair, loras[:2], span=(2, 3))))
    assert torch.equal(throughout, whole)
    assert min(relative_error(later, plain), relative_error(later, whole)) > 1e-3
    assert torch.equal(runs.sampled(pair, (1,)), plain)


def test_merged_holds_for_loras_by_step(runs: Runs, loras: tuple[str, ...]) -> None:
    pair = runs.pair("fp8_scaled")
    by_step, whole = (runs.sampled(runs.with_loras(pair, loras[:2], True, span), (1,)) for span in ((1, STEPS), (1, 0)))
    assert torch.equal(by_step, whole)


def test_lora_hooks_on_the_conditioning_work_beside_them(runs: Runs, experts: Pair, loras: tuple[str, ...], lora_folder: Path,
                                                         weights: tuple[Weights, Weights]) -> None:
    """In plain float8: core's hooks read no scales, neither in 0.3.75 nor in 0.30.0."""
    import comfy.hooks
    pair = runs.pair("plain float8_e4m3fn")
    hook = comfy.hooks.create_hook_lora(lora(2, weights[0]), 1.0, 0.0)
    hooked, unhooked = (runs.sampled(runs.with_loras(pair, loras[:2]), (1,), positive) for positive in (
        comfy.hooks.set_hooks_for_conditioning(runs.positive, hook), None))
    target = runs.sampled(runs.with_loras(experts, loras[:2]), (1,), comfy.hooks.set_hooks_for_conditioning(runs.positive, hook))
    assert relative_error(hooked, target) < relative_error(unhooked, target)


def test_a_layer_that_core_computes_with_its_activation_has_them_too(runs: Runs, lora_folder: Path, weights: tuple[Weights, Weights]) -> None:
    save_file(lora(5, weights[0], ending="ffn.2.weight"), lora_folder / FILES[0])
    pair = runs.pair("int8")
    plain = runs.sampled(pair, (1,))
    assert relative_error(runs.sampled(runs.with_loras(pair, FILES[:1]), (1,)), plain) > 1e-2
    assert torch.equal(runs.sampled(pair, (1,)), plain)


@pytest.fixture
def streaming(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are loaded with room for next to none of their weights, as on a small GPU."""
    patcher = importlib.import_module("comfy.model_patcher").ModelPatcher
    original = patcher.load

    def load(self: Any, device_to: Any = None, lowvram_model_memory: int = 0, force_patch_weights: bool = False, full_load: bool = False) -> Any:
        return original(self, device_to, 1, force_patch_weights, False)

    monkeypatch.setattr(patcher, "load", load)
    yield
    importlib.import_module("comfy.model_management").unload_all_models()


@pytest.mark.parametrize("name", ["fp8_scaled", "nvfp4", "int8 convrot"])
def test_weights_that_are_streamed_have_them_too(runs: Runs, loras: tuple[str, ...], request: pytest.FixtureRequest, name: str) -> None:
    whole = runs.sampled(runs.with_loras(runs.pair(name), loras), (1,))
    importlib.import_module("comfy.model_management").unload_all_models()
    request.getfixturevalue("streaming")
    assert relative_error(runs.sampled(runs.with_loras(runs.pair(name), loras), (1,)), whole) < 2e-3


@pytest.mark.parametrize("split_first", [True, False])
def test_prompts_split_over_two_devices_have_them_on_both(runs: Runs, loras: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
                                                          split_first: bool) -> None:
    """Core's MultiGPU CFG Split, before Wan 2.2 Apply LoRAs or after it."""
    management = importlib.import_module("comfy.model_management")
    if not hasattr(management, "get_all_torch_devices"):
        pytest.skip("this ComfyUI has no MultiGPU CFG Split")
    pair, whole = runs.pair("nvfp4"), runs.sampled(runs.with_loras(runs.pair("nvfp4"), loras), (1,))
    monkeypatch.setattr(management, "get_all_torch_devices", lambda exclude_current=False: [management.get_torch_device(), torch.device("cpu", 1)])

    def split(experts: Pair) -> Pair:
        high, low = (importlib.import_module("comfy.multigpu").create_multigpu_deepclones(expert, 2) for expert in experts)
        return high, low

    pair = runs.with_loras(split(pair), loras) if split_first else split(runs.with_loras(pair, loras))
    assert relative_error(runs.sampled(pair, (1,)), whole) < 2e-3


@pytest.mark.parametrize("name", ["fp8_scaled", "nvfp4", "plain float8_e4m3fn"])
def test_another_type_leaves_a_quantised_file_as_it_is(runs: Runs, name: str) -> None:
    files, pair = runs.pack.nodes.host.models.files, runs.pair(name)
    names = [f"{name}_{side}.safetensors" for side in ("high", "low")]
    assert [files.left_as_it_is(file, dtype_to_rest_in(name)) for file in names] == ["", ""]
    assert all(files.left_as_it_is(file, "fp8_e5m2") for file in names)
    high, low = (files.load_expert(file, "fp8_e5m2") for file in names)
    default = pair if name not in PLAIN else tuple(files.load_expert(file, "default") for file in names)
    assert torch.equal(runs.sampled((high, low), (1,)), runs.sampled(default, (1,)))


def test_another_type_is_followed_for_a_file_in_half_precision(runs: Runs) -> None:
    file = runs.models / "diffusion_models" / "half.safetensors"
    save_file({key: tensor.half() for key, tensor in runs.weights[0].items()}, file)
    expert = runs.pack.nodes.host.models.files.load_expert(file.name, "fp8_e5m2")
    file.unlink()
    assert expert.model.diffusion_model.blocks[0].ffn[0].weight.dtype == torch.float8_e5m2


@pytest.mark.parametrize("name", ["mxfp8", "int8", "w4a8"])
def test_what_this_comfyui_does_not_read_is_refused_with_the_version_that_does(runs: Runs, name: str) -> None:
    algorithm, files = quantised_weights.LAYOUTS[name].algorithm, runs.pack.nodes.host.models.files
    marker = torch.tensor(list(json.dumps({"format": algorithm}).encode()), dtype=torch.uint8)
    paths = [runs.models / "diffusion_models" / f"marked_{side}.safetensors" for side in ("high", "low")]
    for path, weights in zip(paths, runs.weights, strict=True):
        save_file({**weights, "blocks.0.ffn.2.comfy_quant": marker}, path)
    lacking = quantised_weights.missing(name)
    with pytest.raises(ValueError, match=f"quantised as {algorithm}, which this ComfyUI does not read. Use ") if lacking else nullcontext():
        files.check_expert_files(*(path.name for path in paths), "default")
    for path in paths:
        path.unlink()


def test_their_memory_is_counted_and_held_once(runs: Runs, loras: tuple[str, ...]) -> None:
    choice, lora_host = runs.pack.nodes.engine.lora.routing.LoraChoice(loras[0]), runs.pack.nodes.host.models.lora
    high, low, lines, _ = lora_host.apply(*runs.pair("fp8_scaled"), [choice])
    size = sum(tensor.nbytes for tensor in lora(0, runs.weights[0]).values())
    assert [extra.model_size() for model in (high, low) for extra in model.get_nested_additional_models()] == [size, size]
    ours, theirs = ({parameter.data_ptr() for parameter in model.get_nested_additional_models()[0].model.parameters()} for model in (high, low))
    assert ours == theirs
    assert all("20 beside quantised layers on the fly" in line for line in lines)


def test_what_is_no_plain_lora_is_merged_and_the_report_says_so(runs: Runs, lora_folder: Path, weights: tuple[Weights, Weights]) -> None:
    key = "diffusion_model.blocks.0.self_attn.q"
    save_file({f"{key}.diff": torch.randn(128, 128) / 100, f"{key}.diff_b": torch.zeros(128)}, lora_folder / FILES[0])
    choice = runs.pack.nodes.engine.lora.routing.LoraChoice(FILES[0])
    high, _, lines, _ = runs.pack.nodes.host.models.lora.apply(*runs.pair("fp8_scaled"), [choice])
    assert ", 1 merged into quantised layers" in lines[0] and not high.injections
