"""Safety: labels mean what they mean, every scene is looked at, and nothing unsafe passes between two looks."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from engine.frames import to_levels
from engine.safety.labels import Verdict, unsafe_labels, verdict
from engine.safety.phrases import parsed, phrase_list
from engine.safety.stream import BLUR, STOP, Check, UnsafeContent, blurred, checked

FRAMES = 40
SIZE = 48


def red_is_unsafe(picture: np.ndarray) -> Verdict:
    """A stand-in for a network: how red the picture is."""
    red = float((picture[..., 0] / 255 - picture[..., 2] / 255).clip(0).mean())
    return Verdict({"normal": 1 - red, "nsfw": red}, red)


def clip(red: range, chunk: int = 5) -> Iterator[torch.Tensor]:
    """Grey frames with texture that change a little, and red ones where asked."""
    torch.manual_seed(0)
    frames = torch.rand(1, SIZE, SIZE, 1).expand(FRAMES, -1, -1, 3) * 0.3 + torch.linspace(0.1, 0.3, FRAMES).view(-1, 1, 1, 1)
    for index in red:
        frames[index, ..., 0], frames[index, ..., 2] = 1.0, 0.0
    yield from frames.split(chunk)


def run(red: range, **options) -> tuple[torch.Tensor, list, list[int]]:
    reports, looks = [], []

    def look(picture: np.ndarray) -> Verdict:
        looks.append(1)
        return red_is_unsafe(picture)

    check = Check(0.5, report_to=lambda report: reports.append((report.looked_at, report.blurred, report.worst)), **options)
    return torch.cat(list(checked(clip(red), look, check))), reports, looks


def test_a_safe_clip_passes_bit_for_bit():
    out, reports, looks = run(range(0))
    assert torch.equal(out, torch.cat(list(clip(range(0)))))
    assert len(looks) == FRAMES // 8 + 1 == reports[-1][0]
    assert reports[-1][1] == 0 and reports[-1][2].verdict.unsafe < 0.1


@pytest.mark.parametrize("red", [range(0, 1), range(39, 40), range(13, 14), range(20, 33)])
def test_an_unsafe_scene_of_any_length_stops_the_clip(red: range):
    with pytest.raises(UnsafeContent, match=rf"frame {red[0]} is unsafe 1\.000 \(nsfw 1\.000, normal 0\.000\).*Nothing was written"):
        run(red)


@pytest.mark.parametrize("red", [range(0, 1), range(39, 40), range(13, 14), range(20, 33)])
def test_unsafe_frames_are_blurred_and_no_others(red: range):
    out, reports, _ = run(red, action=BLUR)
    truth = torch.cat(list(clip(red)))
    changed = [index for index in range(FRAMES) if not torch.equal(out[index], truth[index])]
    assert out.shape == truth.shape
    assert changed == list(red)
    assert reports[-1][1] == len(red)
    assert reports[-1][2].frame in red


def test_frames_between_a_safe_and_an_unsafe_look_are_blurred():
    """Unsafe content that fades in makes no new scene."""
    def fading() -> Iterator[torch.Tensor]:
        torch.manual_seed(0)
        picture = torch.rand(1, SIZE, SIZE, 3) * 0.2
        for index in range(33):
            frame = picture.clone()
            frame[..., 0] += 0.8 * index / 32
            yield frame

    seen = torch.cat(list(checked(fading(), red_is_unsafe, Check(0.5, BLUR))))
    truth = torch.cat(list(fading()))
    for index in range(33):
        if red_is_unsafe(to_levels(truth[index : index + 1])[0]).unsafe >= 0.5:
            assert not torch.equal(seen[index], truth[index])
    assert torch.equal(seen[:8], truth[:8])


def test_the_verdict_on_a_video_of_a_batch_says_nothing_about_the_next():
    """Two videos that look alike, so that no scene changes between them: the first ends unsafe, the second is not."""
    ramp = torch.linspace(0.4, 0.6, 12)
    frames = torch.zeros(24, SIZE, SIZE, 3)
    frames[..., 1] = torch.rand(SIZE, SIZE) * 0.2
    frames[:12, ..., 0] = ramp[:, None, None]
    frames[12:, ..., 0] = 0.45
    seen = [torch.cat(list(checked(frames.split(5), red_is_unsafe, Check(0.5, BLUR), seams))) for seams in ((), (12,))]
    changed = [[index for index in range(24) if not torch.equal(out[index], frames[index])] for out in seen]
    assert changed[1] == changed[0][: len(changed[1])] == list(range(changed[0][0], 12))
    assert len(changed[0]) > len(changed[1])


def test_a_batch_that_is_stopped_says_which_of_its_videos_are_not_written():
    with pytest.raises(UnsafeContent, match=r"frame 20 is unsafe.*Of video 2 of 3 and of those after it nothing was written"):
        list(checked(clip(range(20, 22)), red_is_unsafe, Check(0.5), seams=(10, 30)))
    with pytest.raises(UnsafeContent, match=r"frame 3 is unsafe.*\. Nothing was written"):
        list(checked(clip(range(3, 5)), red_is_unsafe, Check(0.5), seams=(10, 30)))


def test_at_most_the_frames_between_two_looks_are_held():
    pulled = []

    def counting() -> Iterator[torch.Tensor]:
        for index, frame in enumerate(clip(range(0), 1)):
            pulled.append(index)
            yield frame

    out = checked(counting(), red_is_unsafe, Check(0.5, every=4))
    for index in range(12):
        next(out)
        assert len(pulled) <= index + 5


def test_the_classifier_sees_the_frame_rounded_to_8_bit():
    truth, seen = torch.cat(list(clip(range(0)))), []

    def look(picture: np.ndarray) -> Verdict:
        seen.append(picture)
        return Verdict({}, 0.0)

    list(checked(iter(truth.split(4)), look, Check(0.5)))
    for picture, index in zip(seen, [0, *range(8, FRAMES, 8), FRAMES - 1], strict=True):
        assert picture.dtype == np.uint8 and picture.shape == (SIZE, SIZE, 3)
        assert np.abs(picture / 255 - truth[index].numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_blurred_frame_keeps_its_type_and_has_no_steps_of_8_bit():
    frame = torch.linspace(0, 1, 96, dtype=torch.float64).view(1, 1, -1, 1).repeat(1, 64, 1, 3)
    soft = blurred(frame)
    assert soft.dtype == frame.dtype and soft.min() >= 0 and soft.max() <= 1
    assert len(soft[0, 0, :, 0].unique()) > 80  # of 96 columns, though there are 12 cells


def test_blurring_leaves_no_detail_and_keeps_the_colour():
    torch.manual_seed(1)
    frame = torch.rand(1, 64, 96, 3)
    soft = blurred(frame)
    assert soft.shape == frame.shape
    assert soft.std() < 0.2 * frame.std()
    torch.testing.assert_close(soft.mean((1, 2)), frame.mean((1, 2)), atol=0.02, rtol=0)


@pytest.mark.parametrize(("options", "pattern"), [({"threshold": 1.5}, "threshold"), ({"every": 0}, "every"), ({"action": "hide"}, "when_unsafe")])
def test_bad_settings_are_told(options: dict, pattern: str):
    with pytest.raises(ValueError, match=pattern):
        Check(**{"threshold": 0.5, "action": STOP, **options})


@pytest.mark.parametrize(("labels", "expected"), [
    (("normal", "nsfw"), {"nsfw"}), (("sfw", "nsfw"), {"nsfw"}), (("SAFE", "NSFW"), {"NSFW"}),
    (("drawings", "hentai", "neutral", "porn", "sexy"), {"hentai", "porn", "sexy"}),
    (("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"), {"toxic", "severe_toxic", "obscene", "threat"}),
    (("OK", "S", "H", "V", "HR", "SH", "S3", "H2", "V2"), {"S", "H", "V", "HR", "SH", "S3", "H2", "V2"}),
])
def test_labels_of_known_classifiers(labels: tuple[str, ...], expected: set[str]):
    assert unsafe_labels(labels) == expected


def test_labels_can_be_named_and_unknown_ones_are_told():
    assert unsafe_labels(("LABEL_0", "LABEL_1"), " label_1 ,") == {"LABEL_1"}
    with pytest.raises(ValueError, match="known to mean unsafe: LABEL_0, LABEL_1"):
        unsafe_labels(("LABEL_0", "LABEL_1"))
    with pytest.raises(ValueError, match="'blood'.*normal, nsfw"):
        unsafe_labels(("normal", "nsfw"), "nsfw, blood")


def test_exclusive_scores_add_up_and_others_do_not():
    scores = {"neutral": 0.4, "porn": 0.35, "sexy": 0.25}
    assert verdict(scores, ("porn", "sexy"), exclusive=True).unsafe == pytest.approx(0.6)
    assert verdict(scores, ("porn", "sexy"), exclusive=False).unsafe == pytest.approx(0.35)


@pytest.mark.parametrize("text", [
    "A little girl and a little boy build a sandcastle on the beach.", "A baby and a toddler play with wooden blocks.", "a yellow rapeseed field",
    "a bottomless pit", "a topless double-decker bus", "a gore-tex jacket", "an antique snuff box", "a naked mole rat digs",
    "\u81ea\u6740\u5c0f\u961f", "\u5c11\u5973\u5728\u513f\u7ae5\u4e50\u56ed"])
def test_innocent_phrases_pass(text: str):
    assert phrase_list().check(text).unsafe < 0.5


@pytest.mark.parametrize("text", ["a naked rock star on stage", "n_u_d_e woman", "n.u.d.e woman", "\uff4e\uff55\uff44\uff45 woman",
                                  "nu\u00adde woman", "a NUDE woman",
                                  "a teen in underwear"])
def test_spelling_hides_nothing(text: str):
    assert phrase_list().check(text).unsafe >= 0.5


def test_a_phrase_that_makes_others_worse_says_nothing_alone():
    phrases = parsed("0.4: lingerie\nworse 0.5: child*, teen*\ninnocent: lingerie shop")
    assert phrases.check("a child, a teenager").unsafe == 0
    assert phrases.check("lingerie").unsafe == pytest.approx(0.4)
    assert phrases.check("a child, a teenager, lingerie").unsafe == pytest.approx(0.7)
    assert phrases.check("a child in a lingerie shop").unsafe == 0
    with pytest.raises(ValueError):
        parsed("often: lingerie")
