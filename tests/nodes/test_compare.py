"""`dev.py compare`: its measures, what it keeps, and its report, with tiny weights."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import compare
import compare_report
import tiny_weights
import videos
from engine.sampling.forecast import ACCELERATIONS
from likeness import Likeness, likeness
from model_choice import choices
from side_by_side import write_side_by_side
from studio import Settings, Studio

PROMPT = "two cats chase a ball of wool: \u4e24\u53ea\u732b"
SETTINGS = Settings(tiny_weights.HIGH, tiny_weights.LOW, tiny_weights.VAE, tiny_weights.TEXT_ENCODER, None, None, 32, 32, frames=6, solver="unipc",
                    steps=2, shift=5.0, guidance=(3.5, 1.0), seed=3)


@pytest.fixture
def clip() -> np.ndarray:
    """Colours that move, (T, H, W, 3), without the darkest and the lightest levels."""
    rising = np.linspace(40, 200, 24 * 32).reshape(24, 32, 1) * np.array([1.0, 0.8, 0.5])
    return np.stack([np.roll(rising, shift, 1) for shift in range(10)]).astype(np.uint8)


def test_equal_clips_differ_in_nothing(clip: np.ndarray) -> None:
    alike = likeness(clip, clip.copy())
    assert (alike.psnr, alike.flicker, alike.saturation) == (math.inf, 1, 1)
    assert alike.ssim == pytest.approx(1)
    assert likeness(clip[:1] * 0, clip[:1] * 0).flicker == 1  # a black picture, too


def test_psnr_is_that_of_the_error(clip: np.ndarray) -> None:
    assert likeness(clip + 5, clip).psnr == pytest.approx(20 * math.log10(255 / 5))


def test_brightness_that_alternates_is_more_flicker(clip: np.ndarray) -> None:
    alternating = clip + (np.arange(len(clip)) % 2 * 20).astype(np.uint8)[:, None, None, None]
    assert likeness(alternating, clip).flicker > 1.5
    assert likeness(clip, alternating).flicker < 0.7


def test_grey_has_less_saturation_and_the_same_for_a_part_of_the_light(clip: np.ndarray) -> None:
    grey = clip.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    assert likeness(grey, clip).saturation == 0
    assert 0.4 < likeness(clip // 2 + grey // 2, clip).saturation < 0.7
    assert likeness(clip // 2, clip).saturation == pytest.approx(1, abs=0.02)


def test_clips_of_other_lengths_are_refused(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="only clips of one size and length"):
        likeness(clip[1:], clip)


def test_side_by_side_each_clip_keeps_its_place_and_its_frames(clip: np.ndarray, tmp_path: Path) -> None:
    path, shades = tmp_path / "two.mp4", [np.full_like(clip, shade) for shade in (60, 190)]
    write_side_by_side(path, shades, [["left"], ["right, " * 40]], PROMPT * 20, 16)
    seen = videos.pixels(path)
    assert len(seen) == len(clip)
    middle = seen[:, seen.shape[1] // 2]
    for part, shade in zip((middle[:, 50:300], middle[:, -300:-50]), (60, 190), strict=True):
        np.testing.assert_allclose(part, shade, atol=4)


def test_the_same_clips_are_not_sampled_again(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below ten steps no acceleration skips, so that all clips are equal."""
    accelerations = compare.in_order(ACCELERATIONS)
    rows = compare.Comparison(Studio(pack, SETTINGS), accelerations, tmp_path).run([PROMPT])
    assert [row.acceleration for row in rows] == accelerations and accelerations[0] == "none"
    assert {(row.model_calls, row.likeness.psnr, row.likeness.flicker) for row in rows} == {(3, math.inf, 1)}
    (video,) = tmp_path.glob("*.mp4")
    assert videos.facts(video).frames == 6
    report = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert [each["acceleration"] for each in report["accelerations"]] == accelerations and report["clips"][0]["prompt"] == PROMPT
    assert all(f"| {name} " in (tmp_path / "compare.md").read_text(encoding="utf-8") for name in accelerations)

    monkeypatch.setattr(pack.nodes.host.sampling.run, "sample", lambda *run: pytest.fail("sampled again"))
    video.unlink()
    resumed = Studio(pack, SETTINGS)
    assert compare.Comparison(resumed, accelerations, tmp_path).run([PROMPT]) == rows and video.exists()
    monkeypatch.setattr(resumed, "decoded", lambda samples: pytest.fail("decoded again"))
    assert compare.Comparison(resumed, accelerations, tmp_path).run([PROMPT]) == rows


def test_another_setting_is_another_clip(pack: ModuleType, tmp_path: Path) -> None:
    keys = [compare.Comparison(Studio(pack, settings), ["none"], tmp_path).key(prompt, name)
            for settings in (SETTINGS, replace(SETTINGS, seed=4), replace(SETTINGS, high=tiny_weights.LOW, low=tiny_weights.HIGH))
            for prompt in (PROMPT, "another") for name in ("none", "regular")]
    assert len(set(keys)) == len(keys)


def test_the_worst_clip_is_the_least_alike_and_the_share_farthest_from_one() -> None:
    rows = [compare_report.Row("p", name, seconds, 4, Likeness(*alike), "p.mp4")
            for name, seconds, alike in (("none", 4.0, (math.inf, 1, 1, 1)), ("none", 4.0, (math.inf, 1, 1, 1)),
                                         ("regular", 1.0, (30, 0.9, 1.1, 1.0)), ("regular", 3.0, (40, 0.8, 0.7, 1.2)))]
    none, regular = compare_report.summaries(rows, "none")
    assert (none.share, regular.share, regular.seconds.worst) == (1, 0.5, 3)
    assert (regular.psnr.mean, regular.psnr.worst, regular.ssim.worst, regular.flicker.worst, regular.saturation.worst) == (35, 30, 0.8, 0.7, 1.2)


def test_files_that_are_not_named_are_the_official_ones_or_the_miniatures() -> None:
    own = compare.settings_of(choices(compare.arguments(), ["--own-models", "--low", "mine.safetensors"]))
    assert (own.high, own.low, own.vae, own.text_encoder) == (tiny_weights.HIGH, "mine.safetensors", tiny_weights.VAE, tiny_weights.TEXT_ENCODER)
    assert (own.width, own.height, own.frames, own.lora_high) == (832, 480, 81, None)
    assert "miniature" in compare.settings_of(choices(compare.arguments(), [])).high


@pytest.mark.parametrize("content", [b"", b"\n  \n", b"\xff\xfe\x00", None])
def test_a_file_without_prompts_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="prompts.txt (holds no prompt|cannot be read).* on each line"):
        compare.prompts_of(file, own_models=True)


def test_prompts_are_lines_each_once(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeffone\n\n two \none\n", encoding="utf-8")
    assert compare.prompts_of(tmp_path / "prompts.txt", own_models=True) == ["one", "two"]
