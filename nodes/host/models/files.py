"""Find and load weight files through ComfyUI's own loaders."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.quant_ops
import comfy.sd
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import comfy.utils
import folder_paths
import torch

from ...engine.checkpoints import CheckpointError, Shape, check_t2v_expert, safetensors_shapes, same_content
from ...engine.choices import check_choice, choose
from ...engine.model_files import SAFETENSORS, missing_file
from ...engine.pairs import swapped_names_warning, with_slashes
from ...engine.quantisation import Quantisation, check_readable, quantisation
from ...engine.text.umt5 import TOKENIZER_KEY, XXL, UMT5Size, umt5_size
from .forecast_files import MEASURED, measured_beside

WEIGHT_DTYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}
DEVICES: dict[str, dict[str, Any]] = {
    "default": {},
    "cpu": {"load_device": torch.device("cpu"), "offload_device": torch.device("cpu")},
}


DEFAULT = "default"
PLACES_WITHOUT_CHOICE = (DEFAULT, "cpu")


def model_names(folder: str) -> list[str]:
    return folder_paths.get_filename_list(folder)


def listed_name(folder: str, name: str) -> str:
    """A file's name with the slashes of this system: workflows come from others."""
    return next((listed for listed in model_names(folder) if with_slashes(listed) == with_slashes(name)), name)


def model_path(folder: str, name: str) -> Path:
    """Path of a weight file, with either slash in its name; CheckpointError with the download link when it is not there."""
    path = folder_paths.get_full_path(folder, listed_name(folder, name))
    if path is None:
        raise CheckpointError(missing_file(folder, name))
    return Path(path)


def check_expert_files(high_noise_model: str, low_noise_model: str, weight_dtype: str) -> None:
    """ValueError unless both names are two different Wan text-to-video experts that this ComfyUI reads and the type is known; reads headers only."""
    check_choice("weight_dtype", weight_dtype, WEIGHT_DTYPES)
    high, low = (model_path("diffusion_models", name) for name in (high_noise_model, low_noise_model))
    for path in (high, low):
        if path.suffix.lower() in SAFETENSORS:
            check_t2v_expert(safetensors_shapes(path), path.name)
            check_readable(quantisation(path), comfy.quant_ops.QUANT_ALGOS, hasattr(comfy.utils, "detect_layer_quantization"), path.name)
        measured_beside(path)
    if same_content(high, low):
        raise CheckpointError(f"high_noise_model '{high_noise_model}' and low_noise_model '{low_noise_model}' hold the same weights. "
                              "Wan 2.2 needs two experts: choose the high_noise and the low_noise file.")


def expert_warnings(high_noise_model: str, low_noise_model: str, weight_dtype: str, low_device: str) -> list[str]:
    """What is likely not meant, or not done as asked: names that say the other expert, a type that a quantised file does not take, a GPU that is not
    here."""
    kept = [] if weight_dtype == DEFAULT else [f"{name} ({how})" for name in (high_noise_model, low_noise_model)
                                               if (how := left_as_it_is(name, weight_dtype))]
    found = [swapped_names_warning(high_noise_model, low_noise_model),
             f"weight_dtype {weight_dtype} is not followed: {', '.join(kept)} would be rounded a second time" if kept else None,
             None if low_device in placements() else f"low_device is {low_device}, which is not here; the low-noise expert is where the other one is"]
    return [warning for warning in found if warning]


def placements() -> list[str]:
    """Where ComfyUI can place a model: "default", and where it knows several GPUs "cpu", "gpu:0", "gpu:1", ...; 0.3.75 knows one place."""
    options: Callable[[], list[str]] = getattr(comfy.model_management, "get_gpu_device_options", lambda: [DEFAULT])
    found = options()
    return found if len(found) > len(PLACES_WITHOUT_CHOICE) else [DEFAULT]


def placed(model: comfy.model_patcher.ModelPatcher, device: str) -> comfy.model_patcher.ModelPatcher:
    """The model on one of the `placements`, as core's Select Model Device puts it there; as it is for "default" and for a GPU of another machine."""
    if device not in placements() or device == DEFAULT:
        return model
    node: Any = importlib.import_module("comfy_extras.nodes_multigpu").SelectModelDeviceNode
    there: comfy.model_patcher.ModelPatcher = node.execute(model, device).result[0]
    return there


def left_as_it_is(name: str, weight_dtype: str) -> str:
    """How an expert's file is quantised already, where `weight_dtype` would round it anew; empty where the type is followed."""
    path, options = model_path("diffusion_models", name), choose("weight_dtype", weight_dtype, WEIGHT_DTYPES)
    file = quantisation(path) if options and path.suffix.lower() in SAFETENSORS else Quantisation()
    return file.describe() if file.changed_by(str(options.get("dtype")).removeprefix("torch.")) else ""


def load_expert(name: str, weight_dtype: str) -> comfy.model_patcher.ModelPatcher:
    """One expert, through the loader that core's "Load Diffusion Model" uses, with the forecast settings that lie beside its file. What is quantised
    already stays as it is, whatever `weight_dtype` says."""
    path, options = model_path("diffusion_models", name), {} if left_as_it_is(name, weight_dtype) else dict(WEIGHT_DTYPES[weight_dtype])
    model = comfy.sd.load_diffusion_model(str(path), model_options=options)
    if settings := measured_beside(path):
        model.set_attachments(MEASURED, settings)
    return model


def text_encoder_size(name: str) -> UMT5Size:
    """Size of the UMT5 encoder in the file; CheckpointError when it is something else. Reads the header only."""
    path = model_path("text_encoders", name)
    if path.suffix.lower() in SAFETENSORS:
        return umt5_size(safetensors_shapes(path), path.name)
    return umt5_size(_shapes(comfy.utils.load_torch_file(str(path), safe_load=True)), path.name)


def check_text_encoder_file(name: str, device: str) -> None:
    """ValueError unless the file is a UMT5 encoder and the device is known; reads the header only."""
    check_choice("device", device, DEVICES)
    text_encoder_size(name)


def load_text_encoder(name: str, device: str) -> comfy.sd.CLIP:
    """A UMT5 encoder of any size with the tokenizer of its file; XXL through core's loader, which knows only that size."""
    size = text_encoder_size(name)
    path = str(model_path("text_encoders", name))
    options = dict(choose("device", device, DEVICES))
    embeddings = folder_paths.get_folder_paths("embeddings")
    if size == XXL:
        return comfy.sd.load_clip([path], embeddings, comfy.sd.CLIPType.WAN, options)
    return _load_umt5(path, size, embeddings, options)


def _load_umt5(path: str, size: UMT5Size, embeddings: list[str], options: dict[str, Any]) -> comfy.sd.CLIP:
    weights = _dequantizable(*comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True))
    target = _Target(comfy.text_encoders.wan.te(**comfy.text_encoders.sd3_clip.t5_xxl_detect(weights)))
    loads_weights_itself = "state_dict" in inspect.signature(comfy.sd.CLIP.__init__).parameters  # not yet in 0.3.75
    clip = comfy.sd.CLIP(
        target, embedding_directory=embeddings, parameters=comfy.utils.calculate_parameters(weights),
        tokenizer_data={TOKENIZER_KEY: weights[TOKENIZER_KEY]}, model_options={**options, "umt5xxl_model_config": size.as_config()},
        **({"state_dict": [weights]} if loads_weights_itself else {}))
    if not loads_weights_itself:
        clip.load_sd(weights)
    return clip


class _Target:
    """What comfy.sd.CLIP builds itself from: a model class, a tokenizer class and no further parameters."""

    def __init__(self, clip: type) -> None:
        self.clip = clip
        self.tokenizer = comfy.text_encoders.wan.WanT5Tokenizer
        self.params: dict[str, Any] = {}


def _dequantizable(weights: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> dict[str, torch.Tensor]:
    """Newer ComfyUI versions rename the scales of fp8_scaled files before they build the model."""
    convert = getattr(comfy.utils, "convert_old_quants", None)
    return convert(weights, model_prefix="", metadata=metadata)[0] if convert else weights


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in weights.items()}
