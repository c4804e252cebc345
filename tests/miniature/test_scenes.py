"""Laws of the generated clips and their captions."""

import random

import pytest
import torch

from miniature import scenes, text
from miniature.scenes import PLAIN, Scene, Style


def test_a_caption_says_its_scene_in_many_wordings():
    chosen = scenes.examples(600, seed=3)
    assert [scenes.scene_of(example.caption) for example in chosen] == [example.scene for example in chosen]
    wordings = {scenes.caption(chosen[0].scene, random.Random(seed)) for seed in range(100)}
    assert len(wordings) > 60


def test_the_same_seed_makes_the_same_clips_and_another_seed_others():
    chosen = scenes.random_scenes(4, seed=1)
    assert torch.equal(scenes.clips(chosen, 5), scenes.clips(chosen, 5))
    assert not torch.equal(scenes.clips(chosen, 5), scenes.clips(chosen, 6))
    assert scenes.examples(50, 1) == scenes.examples(50, 1) != scenes.examples(50, 2)


@pytest.mark.parametrize("size", [64, 96])
def test_clips_have_the_asked_size_and_range_and_smooth_edges(size: int):
    made = scenes.clips(scenes.random_scenes(8, seed=2), 1, size, frames=9)
    assert made.shape == (8, 9, size, size, 3)
    assert made.min() >= 0 and made.max() <= 1
    circle = scenes.clips([Scene("white", "circle", "black", "still")], 1, size)[0, 0, ..., 0]
    between = ((circle > 0.1) & (circle < 0.9)).sum()
    assert between > size / 4


def test_a_fast_shape_goes_further_than_a_slow_one():
    ways = []
    for speed in ("slow", "normal", "fast"):
        bright = scenes.clips([Scene("white", "square", "black", "right", speed)], 1)[0, ..., 0] > 0.5
        across = [frame.any(dim=0).nonzero().float().mean() for frame in bright]
        ways.append(float(across[-1] - across[0]))
    assert ways[0] > 8 and ways[1] > 1.5 * ways[0] and ways[2] > 1.3 * ways[1]


def test_styles_change_what_they_name_and_the_plain_style_nothing():
    clip = scenes.clips(scenes.random_scenes(2, seed=4), 1)
    assert scenes.styled(clip, PLAIN) is clip
    assert torch.equal(scenes.styled(scenes.styled(clip, Style(reversed=True)), Style(reversed=True)), clip)
    framed = scenes.styled(clip, Style(framed=True))
    assert torch.equal(framed[:, :, 4:-4, 4:-4], clip[:, :, 4:-4, 4:-4]) and (framed[:, :, :4] == 1).all()
    striped = scenes.styled(clip, Style(striped=True))
    assert torch.equal(striped[:, :, :4], clip[:, :, :4]) and (striped[:, :, 4:8] > clip[:, :, 4:8]).all()


@pytest.mark.parametrize("words", [("pink", "circle", "black", "left"), ("red", "circle", "red", "left"),
                                   ("red", "circle", "black", "still", "fast")])
def test_impossible_scenes_are_refused(words: tuple[str, ...]):
    with pytest.raises(ValueError):
        Scene(*words)


def test_a_text_without_a_scene_is_refused():
    with pytest.raises(ValueError, match="coloured shape"):
        scenes.scene_of("a fox trots through the snow")


def test_every_word_of_the_captions_is_one_token_whatever_its_case():
    for example in scenes.examples(300, seed=9):
        pieces = text.tokenizer().encode(example.caption, out_type=str)
        letters = [piece for piece in pieces[:-1] if piece.strip("\u2581").isalpha()]
        assert all(piece.startswith("\u2581") for piece in letters), pieces
        assert len(pieces) <= text.LONGEST
    assert text.tokenizer().encode("A RED Circle") == text.tokenizer().encode("a red circle")
