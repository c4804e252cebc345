"""Every kind of adapter that core has: equal to core's own in float32 where core is right, to LyCORIS, which trains them, where it is not."""

import copy
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

MODULE = "blocks.0.ffn.0"
OUT, IN, RANK = 256, 128, 4
PATH = f"diffusion_model.{MODULE}"


def randn(*shape: int, scale: float = 0.02, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


WEIGHT = randn(OUT, IN, scale=0.1, seed=99)
SQUARE = randn(IN, IN, scale=0.1, seed=98)
ADAPTERS: dict[str, dict[str, torch.Tensor]] = {
    "LoRA": {"lora_up.weight": randn(OUT, RANK), "lora_down.weight": randn(RANK, IN, seed=1), "alpha": torch.tensor(2.0)},
    "LoHa": {"hada_w1_a": randn(OUT, RANK), "hada_w1_b": randn(RANK, IN, seed=1), "hada_w2_a": randn(OUT, RANK, seed=2),
             "hada_w2_b": randn(RANK, IN, seed=3), "alpha": torch.tensor(2.0)},
    "LoKr": {"lokr_w1": randn(4, 8), "lokr_w2_a": randn(OUT // 4, RANK, seed=1), "lokr_w2_b": randn(RANK, IN // 8, seed=2),
             "alpha": torch.tensor(2.0)},
    "LoKr, whole": {"lokr_w1": randn(4, 8), "lokr_w2": randn(OUT // 4, IN // 8, seed=1), "alpha": torch.tensor(1.0)},
    "LoKr, both low": {"lokr_w1_a": randn(4, 2), "lokr_w1_b": randn(2, 8, seed=1), "lokr_w2_a": randn(OUT // 4, 2, seed=2),
                       "lokr_w2_b": randn(2, IN // 8, seed=3), "alpha": torch.tensor(1.0)},
    "GLoRA": {"a1.weight": randn(IN, RANK), "a2.weight": randn(RANK, IN, seed=1), "b1.weight": randn(OUT, RANK, seed=2),
              "b2.weight": randn(RANK, IN, seed=3), "alpha": torch.tensor(2.0)},
    "GLoRA, older": {"a1.weight": randn(RANK, IN), "a2.weight": randn(IN, RANK, seed=1), "b1.weight": randn(RANK, IN, seed=2),
                     "b2.weight": randn(OUT, RANK, seed=3), "alpha": torch.tensor(2.0)},
    "OFT": {"oft_blocks": randn(16, 16, 16)},
    "OFT, loose bound": {"oft_blocks": randn(16, 16, 16, scale=0.01), "alpha": torch.tensor(1e3)},
    "BOFT": {"oft_blocks": randn(4, 16, 16, 16), "alpha": torch.tensor(0.0)},
    "DoRA on inputs": {"lora_up.weight": randn(OUT, RANK), "lora_down.weight": randn(RANK, IN, seed=1), "alpha": torch.tensor(2.0),
                       "dora_scale": randn(1, IN, seed=2).abs() + 1},
}


@pytest.fixture(scope="module")
def patched(pack: ModuleType) -> Callable[..., torch.Tensor]:
    """A float32 weight with a file's tensors on it, at a strength, as our reader puts them."""
    host = importlib.import_module(f"{pack.__name__}.nodes.host.models.lora")
    form = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.normal_form")

    def run(tensors: dict[str, torch.Tensor], strength: float, weight: torch.Tensor = WEIGHT, prefix: str = "lycoris_blocks_0_ffn_0") -> torch.Tensor:
        import comfy.lora
        shapes = {f"{MODULE}.weight": tuple(weight.shape), f"{MODULE}.bias": (weight.shape[0],)}
        whole = form.normal_form({f"{prefix}.{role}": tensor for role, tensor in tensors.items()}, {}, shapes, "a")
        patches = [(strength, patch, 1.0, None, None) for key, patch in host.patches_of(whole.parts[None]) if key == f"{PATH}.weight"]
        return comfy.lora.calculate_weight(patches, weight.clone(), PATH)

    return run


def cores(tensors: dict[str, torch.Tensor], strength: float, weight: torch.Tensor) -> torch.Tensor:
    import comfy.lora
    (patch,) = comfy.lora.load_lora({f"x.{role}": tensor for role, tensor in tensors.items()}, {"x": PATH}, log_missing=False).values()
    return comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], weight.clone(), PATH)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_equal_to_core_at_full_strength(patched: Callable[..., torch.Tensor], kind: str) -> None:
    ours, theirs = patched(ADAPTERS[kind], 1.0), cores(ADAPTERS[kind], 1.0, WEIGHT)
    assert not torch.equal(ours, WEIGHT)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if "OFT" not in kind])
@pytest.mark.parametrize("strength", [0.5, -1.0, 2.0])
def test_equal_to_core_at_every_strength_but_where_core_counts_it_twice(patched: Callable[..., torch.Tensor], kind: str, strength: float) -> None:
    torch.testing.assert_close(patched(ADAPTERS[kind], strength), cores(ADAPTERS[kind], strength, WEIGHT), rtol=0, atol=2e-6)


def test_square_weights_tell_both_kinds_of_glora_apart(patched: Callable[..., torch.Tensor]) -> None:
    for tensors in ({"a1.weight": randn(IN, RANK), "a2.weight": randn(RANK, IN), "b1.weight": randn(IN, RANK), "b2.weight": randn(RANK, IN)},
                    {"a1.weight": randn(RANK, IN), "a2.weight": randn(IN, RANK), "b1.weight": randn(RANK, IN), "b2.weight": randn(IN, RANK)}):
        torch.testing.assert_close(patched(tensors, 1.0, SQUARE), cores(tensors, 1.0, SQUARE), rtol=0, atol=2e-6)


def trained(kind: str, options: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """A module of LyCORIS on WEIGHT, and the tensors that it would save."""
    file, name = kind.split(".")
    layer = torch.nn.Linear(IN, OUT)
    layer.weight.data.copy_(WEIGHT)
    module = getattr(importlib.import_module(f"lycoris.modules.{file}"), name)("lycoris", layer, 1.0, options.pop("dim", RANK), 2.0, **options)
    with torch.no_grad():
        for index, (key, parameter) in enumerate(module.named_parameters()):
            if "org_module" not in key:
                parameter.copy_(randn(*parameter.shape, seed=index) + (key == "rescale"))
    saved = {key: tensor.detach().clone() for key, tensor in module.state_dict().items() if "org_module" not in key}
    return module, saved


@pytest.mark.parametrize(("kind", "options"), [
    ("diag_oft.DiagOFTModule", {"dim": 16}), ("diag_oft.DiagOFTModule", {"dim": 16, "constraint": 1e-3}),
    ("diag_oft.DiagOFTModule", {"dim": 16, "rescaled": True}), ("boft.ButterflyOFTModule", {"dim": 16}),
    ("boft.ButterflyOFTModule", {"dim": 16, "constraint": 1e-3, "rescaled": True}), ("glora.GLoRAModule", {}),
], ids=str)
def test_equal_to_the_trainer(patched: Callable[..., torch.Tensor], kind: str, options: dict[str, Any]) -> None:
    module, saved = trained(kind, dict(options))
    theirs, _ = module.get_merged_weight(1.0)
    torch.testing.assert_close(patched(saved, 1.0), theirs.detach(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("kind", ["diag_oft.DiagOFTModule", "boft.ButterflyOFTModule"])
@pytest.mark.parametrize("strength", [0.5, -0.5, 1.5])
def test_rotations_count_the_strength_once_as_the_trainer_does(patched: Callable[..., torch.Tensor], kind: str, strength: float) -> None:
    module, saved = trained(kind, {"dim": 16})
    theirs, _ = module.get_merged_weight(strength)
    torch.testing.assert_close(patched(saved, strength), theirs.detach(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("kind", ["locon.LoConModule", "loha.LohaModule", "lokr.LokrModule"])
def test_rank_stabilised_lycoris_files_hold_the_root_in_their_alpha(patched: Callable[..., torch.Tensor], pack: ModuleType, kind: str) -> None:
    """Nothing else may be multiplied by it, whatever ss_network_args says."""
    module, saved = trained(kind, {"rs_lora": True, **({"factor": 4} if "lokr" in kind else {})})
    form = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.normal_form")
    shapes = {f"{MODULE}.weight": (OUT, IN), f"{MODULE}.bias": (OUT,)}
    whole = form.normal_form({f"lycoris_blocks_0_ffn_0.{key}": tensor for key, tensor in saved.items()}, {"ss_network_args": '{"rs_lora": "True"}'},
                             shapes, "a")
    assert whole.parts[None].scales() == [pytest.approx(module.scale, abs=1e-6)]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 32.0])
def test_lokr_of_two_whole_factors_is_scaled_by_one_whatever_its_alpha(patched: Callable[..., torch.Tensor], alpha: float) -> None:
    """LyCORIS sets its scale to 1 there, when it trains and when it loads a file."""
    module, saved = trained("lokr.LokrModule", {"full_matrix": True, "dim": 32})
    assert module.scale == 1
    with torch.no_grad():
        loaded = type(module).make_module_from_state_dict("lycoris", copy.deepcopy(module.org_module[0]), saved["lokr_w1"], None, None,
                                                          saved["lokr_w2"], None, None, None, None, torch.tensor(alpha), None)
    assert loaded.scale == 1
    theirs, _ = loaded.get_merged_weight(1.0)
    torch.testing.assert_close(patched({**saved, "alpha": torch.tensor(alpha)}, 1.0), theirs.detach(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_a_whole_new_value_is_blended(patched: Callable[..., torch.Tensor], strength: float) -> None:
    value = randn(OUT, IN, seed=7)
    torch.testing.assert_close(patched({"set_weight": value}, strength), torch.lerp(WEIGHT, value, strength))
    torch.testing.assert_close(patched({"set_weight": value}, 1.0), cores({"set_weight": value}, 1.0, WEIGHT))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_weights_of_half_precision_take_every_kind(patched: Callable[..., torch.Tensor], kind: str, dtype: torch.dtype) -> None:
    ours = patched(ADAPTERS[kind], 1.0, WEIGHT.to(dtype))
    assert ours.dtype is dtype
    torch.testing.assert_close(ours.float(), patched(ADAPTERS[kind], 1.0), rtol=2e-2, atol=2e-2)


def copied(value: Any) -> Any:
    """As ComfyUI 0.30.0 copies a patch to the GPU, with what is in it, when it loads weights on demand (comfy/lora.py, prefetch_prepared_value)."""
    import comfy.lora
    import comfy.weight_adapter
    if own := getattr(comfy.lora, "prefetch_prepared_value", None):
        return own(value, [0], None, None, False)
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, comfy.weight_adapter.WeightAdapterBase):
        return type(value)(value.loaded_keys, copied(value.weights))
    return tuple(map(copied, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", [*ADAPTERS, "DoRA", "set_weight"])
def test_an_adapter_is_all_in_what_comfyui_copies_of_it(pack: ModuleType, kind: str) -> None:
    import comfy.lora
    host = importlib.import_module(f"{pack.__name__}.nodes.host.models.lora")
    form = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.normal_form")
    more = {"DoRA": {**ADAPTERS["LoRA"], "dora_scale": randn(OUT, 1, seed=2).abs() + 1}, "set_weight": {"set_weight": randn(OUT, IN, seed=5)}}
    tensors = {f"lycoris_blocks_0_ffn_0.{role}": tensor for role, tensor in {**ADAPTERS, **more}[kind].items()}
    part = form.normal_form(tensors, {}, {f"{MODULE}.weight": (OUT, IN)}, "a").parts[None]
    ((_, patch),) = host.patches_of(part)
    adapters = importlib.import_module(f"{pack.__name__}.nodes.host.models.adapters")
    for each in (patch, adapters.StackedLowRank.of([(0.5, patch), (0.25, patch)])) if adapters.is_plain_low_rank(patch) else (patch,):
        here, there = (comfy.lora.calculate_weight([(0.7, one, 1.0, None, None)], WEIGHT.clone(), PATH) for one in (each, copied(each)))
        assert torch.equal(here, there) and not torch.equal(here, WEIGHT)


def test_flat_factors_fit_a_convolution(pack: ModuleType) -> None:
    import comfy.weight_adapter
    adapters = importlib.import_module(f"{pack.__name__}.nodes.host.models.adapters")
    weight, up, down = randn(32, 16, 1, 2, 2), randn(32, 4), randn(4, 64, seed=1)
    stack = adapters.StackedLowRank.of([(1.0, comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None)))])
    after = stack.calculate_weight(weight.clone(), "k", 1.0, 1.0, None, lambda change: change)
    torch.testing.assert_close(after - weight, (up @ down).reshape(weight.shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_untrained_magnitude_changes_nothing_in_any_type(pack: ModuleType, dtype: torch.dtype) -> None:
    """What decides about the type is how much memory the card has."""
    import comfy.weight_adapter
    adapters = importlib.import_module(f"{pack.__name__}.nodes.host.models.adapters")
    weight = randn(64, 5120).to(dtype)
    inner = comfy.weight_adapter.LoRAAdapter(set(), (torch.zeros(64, 4), torch.zeros(4, 5120), None, None, None, None))
    dora = adapters.DoRA(set(), (inner, weight.float().norm(dim=1, keepdim=True)))
    after = dora.calculate_weight(weight.clone(), "k", 1.0, 1.0, None, lambda change: change)
    ratio = after.float().norm(dim=1) / weight.float().norm(dim=1)
    assert (ratio - 1).abs().max() < torch.finfo(dtype).eps / 8
