"""LoRAs that stay beside a quantised layer: their product is added to the layer's output, so that the weights keep their own rounding."""

import copy
import uuid
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary, finalize

import comfy.model_management
import comfy.model_patcher
import comfy.quant_ops
import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection

from .adapters import StackedLowRank
from .memory import Model

NAME = "wan22_on_the_fly"
WEIGHT = ".weight"
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
ON_THE_FLY, MERGED = "on the fly", "merged"
WAYS = (ON_THE_FLY, MERGED)


def is_quantised(model: Model, key: str) -> bool:
    """Whether the layer of this weight rests in float8 or in one of core's quantised layouts. What a GGUF loader packs is not meant: it is never
    merged."""
    weight = comfy.utils.get_attr(model.model, key)
    return key.endswith(WEIGHT) and (isinstance(weight, comfy.quant_ops.QuantizedTensor) or weight.dtype in FLOAT8)


def add_on_the_fly(model: Model, stacks: Mapping[str, StackedLowRank]) -> None:
    """Put low-rank factors, by the key of the weight, beside the layers of a clone of the caller's own. They come and go with it: ComfyUI injects
    them when it loads the clone and ejects them when it unloads it or loads another one of the same model.

    The factors are a model of their own beside the expert, so that ComfyUI counts their memory and places them; where they do not fit, they are
    brought to the GPU in each call.
    """
    name = f"{NAME} {uuid.uuid4()}"
    factors = Factors({key.removesuffix(WEIGHT): stack for key, stack in stacks.items()})
    model.set_additional_models(name, [_patcher(factors, model.load_device, model.offload_device)])
    injection = Injection(name)
    model.set_injections(name, [PatcherInjection(inject=injection.inject, eject=injection.eject)])
    model.is_injected = False  # a clone of a loaded model says that it is injected: core would inject these into that one


class LayerFactors(torch.nn.Module):
    """The factors of several files for one layer: y + sum_i s_i * up_i @ down_i @ x."""

    def __init__(self, stack: StackedLowRank) -> None:
        super().__init__()
        self.ups, self.downs = (torch.nn.ParameterList(torch.nn.Parameter(factors, requires_grad=False) for factors in column)
                                for column in list(zip(*stack.weights, strict=True))[:2])
        self.scales = [float(scale) for _, _, scale in stack.weights]

    def forward(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The layer's output (..., outputs) for x (..., inputs) with the product added in place, in the output's own type."""
        cast = comfy.model_management.cast_to_device
        ups = [cast(up, output.device, output.dtype) * scale for up, scale in zip(self.ups, self.scales, strict=True)]
        downs = [cast(down, output.device, output.dtype) for down in self.downs]
        rows = x.flatten(0, -2).to(output.dtype)
        summed = output.reshape(-1, output.shape[-1])
        summed.addmm_(rows @ torch.cat(downs).T, torch.cat(ups, dim=1).T)
        return summed.reshape(output.shape)


class Factors(torch.nn.Module):
    """LayerFactors by the path of the layer in the expert."""

    def __init__(self, stacks: Mapping[str, StackedLowRank]) -> None:
        super().__init__()
        self.paths = tuple(stacks)
        self.layers = torch.nn.ModuleList(LayerFactors(stack) for stack in stacks.values())


def _patcher(factors: Factors, load_device: torch.device, offload_device: torch.device) -> Model:
    patcher = comfy.model_patcher.ModelPatcher(factors, load_device=load_device, offload_device=offload_device)
    patcher.cached_patcher_init = (_another, (factors, load_device, offload_device))  # core's MultiGPU CFG Split makes its clones by it
    return patcher


def _another(factors: Factors, load_device: torch.device, offload_device: torch.device) -> Model:
    return _patcher(copy.deepcopy(factors).to(offload_device), load_device, offload_device)


class Injection:
    """Puts the factors that a MODEL has under `name` into its network, and takes them out; each as often as asked.

    They go with the MODEL as well: where one is no more, ComfyUI goes on with the one that it was cloned from, which knows of no injection.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.put_in: WeakKeyDictionary[torch.nn.Module, finalize[..., Any]] = WeakKeyDictionary()

    def inject(self, model: Model) -> None:
        self.eject(model)
        network, factors = model.model, model.get_additional_models_with_key(self.name)[0].model
        layers = [network.get_submodule(path) for path in factors.paths]
        replaced = [*(Beside(layer, beside) for layer, beside in zip(layers, factors.layers, strict=True)),
                    *(OneByOne(row) for row in _fusing(network, factors.paths))]
        self.put_in[network] = finalize(model, _restore, replaced)

    def eject(self, model: Model) -> None:
        if model.model in self.put_in:
            self.put_in.pop(model.model)()


class Forward:
    """What a layer computes instead of its own forward, until it is restored. No forward hook: a compiled network would not notice it."""

    def __init__(self, layer: torch.nn.Module) -> None:
        before: Any = vars(layer).get("forward")
        while isinstance(before, Forward) and before.layer is None:
            before = before.before
        self.layer: torch.nn.Module | None = layer
        self.before: Any = before
        self.original = before or MethodType(type(layer).forward, layer)
        layer.forward = self

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return self.original(x, *args, **kwargs)

    def restore(self) -> None:
        """Where another program has put its own over this, it stays below and adds nothing."""
        layer, self.layer = self.layer, None
        if layer is not None and vars(layer).get("forward") is self:
            del layer.forward
            if self.before is not None:
                layer.forward = self.before


class Beside(Forward):
    """A layer with factors beside it."""

    def __init__(self, layer: torch.nn.Module, factors: LayerFactors) -> None:
        super().__init__(layer)
        self.factors = factors

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        output = self.original(x, *args, **kwargs)
        return output if self.layer is None else self.factors(x, output)


class OneByOne(Forward):
    """A row of layers that calls them one by one."""

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return self.original(x, *args, **kwargs) if self.layer is None else torch.nn.Sequential.forward(self.layer, x)  # type: ignore[arg-type]


def _restore(replaced: Sequence[Forward]) -> None:
    for forward in reversed(replaced):
        forward.restore()


def _fusing(network: torch.nn.Module, paths: tuple[str, ...]) -> list[torch.nn.Sequential]:
    """Rows of layers around these that compute them without calling them, as newer ComfyUI versions do with activation and int8 layer in one."""
    parents = [network.get_submodule(path.rpartition(".")[0]) for path in paths]
    return [parent for parent in dict.fromkeys(parents)
            if isinstance(parent, torch.nn.Sequential) and type(parent).forward is not torch.nn.Sequential.forward]
