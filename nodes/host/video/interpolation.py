"""Frame interpolation through ComfyUI: its model folder, its memory management, its VIDEO."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import folder_paths
import torch
from comfy_api.latest import Input

from ...engine.checkpoints import CheckpointError, safetensors_shapes
from ...engine.choices import check_range
from ...engine.frames import FrameStream
from ...engine.interpolation.archives import read
from ...engine.interpolation.checkpoints import FAMILIES, detect
from ...engine.interpolation.flow import OpticalFlow
from ...engine.interpolation.stream import MOST_NEW_FRAMES, Interpolator, interpolate, total_frames
from ...engine.model_files import SAFETENSORS
from ...engine.packages import opencv
from ..models.files import model_names, model_path
from ..models.memory import Model, is_out_of_memory, keep_loaded, on_device, shares_memory
from .lazy import following, stream_of

FOLDER = "frame_interpolation"
OFFICIAL = {family.name.lower(): family.official for family in FAMILIES}
FLOW, NONE = "flow", "none"

AnyInterpolator: TypeAlias = "Model | OpticalFlow"


def interpolator_names() -> list[str]:
    """The files in models/frame_interpolation, the hosted endpoint's choices, which take the file that is there, and what needs no file.

    Newer ComfyUI versions know that folder, and 0.3.75 is told of it.
    """
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    places, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (places, extensions or folder_paths.supported_pt_extensions)
    return [*model_names(FOLDER), *OFFICIAL, FLOW, NONE]


def interpolator_path(name: str) -> Path:
    """Path of a file; for the short name of a family, "film" or "rife", of the official file, else of the first that is named so. CheckpointError
    without any."""
    if name not in OFFICIAL:
        return model_path(FOLDER, name)
    there = model_names(FOLDER)
    fitting = [file for file in there if name in file.lower()]
    return model_path(FOLDER, OFFICIAL[name] if OFFICIAL[name] in there or not fitting else fitting[0])


def file_chosen_by(name: str) -> str:
    """The path of the file that a name stands for now, empty where it needs none: another file is another network."""
    return "" if name in (FLOW, NONE) else str(interpolator_path(name))


def check_interpolator_choice(name: str) -> None:
    """ValueError unless it is "none", or OpenCV, which finds scene cuts, is there, and for all but "flow" a file with a network of a known family."""
    if name == NONE:
        return
    opencv()
    if name == FLOW:
        return
    try:
        path = interpolator_path(name)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Or choose {FLOW} in Wan 2.2 Interpolator Loader, which needs no file.") from error
    header_only = path.suffix.lower() in SAFETENSORS
    detect({key: torch.empty(shape, device="meta") for key, shape in safetensors_shapes(path).items()} if header_only else read(path))


def load_interpolator(name: str) -> "AnyInterpolator | None":
    """The network as a ModelPatcher, in fp16 where ComfyUI says that the GPU is good at it, else in float32; "flow" as it is, for ComfyUI has no
    weights to manage; None for "none"."""
    if name == FLOW:
        return OpticalFlow()
    return None if name == NONE else _patcher(read(interpolator_path(name)))


def interpolated(video: Input.Video, interpolator: "AnyInterpolator | None", new_frames: int, adjust_rate: bool, scene_cut: float) -> Input.Video:
    """VIDEO with `new_frames` frames between each two, at a rate that keeps its duration or, without `adjust_rate`, in slow motion.

    `interpolator` may come from core's loader as well; without one the video passes through, and so does a picture, or a batch of them.
    ValueError for a number out of range.
    """
    check_range("num_interpolated_frames", new_frames, 0, MOST_NEW_FRAMES)
    check_range("scene_cut", scene_cut, 0.0, 1.0)
    if new_frames == 0 or interpolator is None:
        return video
    source = stream_of(video)
    if set(source.lengths) == {1}:
        return video
    network = interpolator if isinstance(interpolator, OpticalFlow) else _ours(interpolator)
    *seams, count = accumulate(total_frames(length, new_frames) for length in source.lengths)
    stream = replace(source, count=count, rate=source.rate * (new_frames + 1) if adjust_rate else source.rate,
                     pull=lambda: _pulled(source, network, new_frames, scene_cut), seams=tuple(seams))
    return following(video, stream)


def _ours(model: Model) -> Model:
    """Core's loader has networks of its own, and the same weights in them."""
    ours = isinstance(model.model, tuple(family.network for family in FAMILIES))
    return model if ours else _patcher(model.model.state_dict())


def _patcher(weights: dict[str, torch.Tensor]) -> Model:
    device = comfy.model_management.get_torch_device()
    network = detect(weights).network(comfy.ops.disable_weight_init)
    network.to(torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32)
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # not yet in 0.3.75, and swapped at start-up later
    return make(network, load_device=device, offload_device=comfy.model_management.unet_offload_device())


def _pulled(source: FrameStream, network: AnyInterpolator, new_frames: int, scene_cut: float) -> Iterator[torch.Tensor]:
    engine = _engine(source, network, new_frames)
    for clip in source.clips():  # nothing is put between two videos of a batch
        yield from interpolate(clip.pull(), new_frames, engine, scene_cut or None, _stop_if_interrupted)


def _engine(source: FrameStream, network: AnyInterpolator, new_frames: int) -> Interpolator:
    if isinstance(network, OpticalFlow):
        return Interpolator(network, torch.device("cpu"), timestep_batch=1)
    managed = ManagedNetwork(network, source)
    return Interpolator(managed, network.load_device, managed.dtype, managed.moments_that_fit(new_frames), is_out_of_memory)


class ManagedNetwork:
    """The network of a ModelPatcher, brought to its device again before each frame: decoding may have taken its place in between."""

    def __init__(self, model: Model, source: FrameStream) -> None:
        self.model, self.network = model, model.model
        self.multiple, self.recursive = self.network.multiple, self.network.recursive
        self.pair, self.between = self.network.pair, self.network.between
        self.dtype = next(self.network.parameters()).dtype
        self.bytes_per_moment = source.width * source.height * self.network.values_per_pixel * self.dtype.itemsize

    def features(self, frame: torch.Tensor) -> Any:
        keep_loaded(self.model, self.bytes_per_moment)
        with on_device(self.model.load_device):
            return self.network.features(frame)

    def moments_that_fit(self, wanted: int) -> int:
        """One at a time where memory is shared with everything else; on a GPU as many as are free."""
        if shares_memory(self.model.load_device):
            return 1
        keep_loaded(self.model, wanted * self.bytes_per_moment)
        return max(1, min(wanted, int(comfy.model_management.get_free_memory(self.model.load_device) // self.bytes_per_moment)))


def _stop_if_interrupted(_: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
