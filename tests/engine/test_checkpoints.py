"""A weight file is judged by its header: what it is, whether it is whole, whether it is another one's copy."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from engine.checkpoints import CheckpointError, check_t2v_expert, safetensors_shapes, same_content


def write(path: Path, weights: tiny_weights.Weights) -> Path:
    save_file(weights, path)
    return path


def test_a_text_to_video_expert_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "expert.safetensors", tiny_weights.expert(seed=1))
    check_t2v_expert(safetensors_shapes(path), path.name)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
def test_prefixes_of_checkpoints_are_accepted(prefix: str) -> None:
    check_t2v_expert({prefix + key: tuple(t.shape) for key, t in tiny_weights.expert(seed=1).items()}, "file")


@pytest.mark.parametrize(("channels", "what"), [(36, "image-to-video"), (48, "5B"), (32, "Wan variant")])
def test_other_channel_counts_are_named(channels: int, what: str) -> None:
    shapes = {key: tuple(t.shape) for key, t in tiny_weights.expert(seed=1, channels=channels).items()}
    with pytest.raises(CheckpointError, match=f"{what}.*{channels} input channels"):
        check_t2v_expert(shapes, "file")


def test_variants_with_the_same_channels_are_named() -> None:
    shapes = {key: tuple(t.shape) for key, t in tiny_weights.expert(seed=1).items()} | {"vace_patch_embedding.weight": (128, 96, 1, 2, 2)}
    with pytest.raises(CheckpointError, match="VACE"):
        check_t2v_expert(shapes, "file")


@pytest.mark.parametrize(("key", "what"), [
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "models/text_encoders"),
    ("decoder.head.0.gamma", "models/vae"),
    ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "models/loras"),
    ("anything", "some other network"),
])
def test_foreign_files_are_told_where_they_belong(key: str, what: str) -> None:
    with pytest.raises(CheckpointError, match=what):
        check_t2v_expert({key: (4, 4)}, "file")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "expert.safetensors", tiny_weights.expert(seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match="expert.safetensors .* not a complete safetensors file"):
        safetensors_shapes(path)


def test_copies_are_found_and_two_experts_are_not(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", tiny_weights.expert(seed=1))
    copy = write(tmp_path / "b.safetensors", tiny_weights.expert(seed=1))
    other = write(tmp_path / "c.safetensors", tiny_weights.expert(seed=2))
    shorter = write(tmp_path / "d.safetensors", {"x": torch.zeros(3)})
    assert same_content(first, first)
    assert same_content(first, copy)
    assert not same_content(first, other)
    assert not same_content(first, shorter)
