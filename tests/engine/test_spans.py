"""Steps in time: from when to when a LoRA is on, an opening of its own guidance, and what both make of the plan."""

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.experts import BOUNDARY, Guidance, Schedule
from engine.sampling.plan import StepPlan, plan_of
from engine.sampling.solvers import SOLVERS
from engine.spans import MAX_STEPS, LoraSpan, Span

LIGHTNING = Schedule("euler", 6, 5.0)  # three steps of each expert


def plan(schedule: Schedule = LIGHTNING, guidance: Guidance = Guidance(1.0, 1.0), acceleration: str = "none",  # noqa: B008 (frozen)
         high: Sequence[Span] = (), low: Sequence[Span] = ()) -> StepPlan:
    loras = {of_high: [LoraSpan(f"{letter}{place}", span) for place, span in enumerate(spans)]
             for of_high, letter, spans in ((True, "h", high), (False, "l", low))}
    return plan_of(schedule, BOUNDARY, guidance, acceleration, loras)


@given(first=st.integers(1, MAX_STEPS), last=st.integers(0, MAX_STEPS), step=st.integers(1, MAX_STEPS))
def test_a_span_holds_the_steps_from_its_first_to_its_last(first: int, last: int, step: int) -> None:
    if 0 < last < first:
        with pytest.raises(ValueError, match=f"first_step is {first}, after last_step {last}"):
            Span(first, last)
    else:
        assert (step in Span(first, last)) is (step in range(first, (last or MAX_STEPS) + 1))


def test_only_a_span_without_ends_is_whole_whatever_the_run() -> None:
    assert Span().is_whole and Span(1, 0).is_whole
    assert not Span(1, 6).is_whole and not Span(2, 0).is_whole


@pytest.mark.parametrize(("span", "words"), [((3, 0), "from step 3"), ((2, 4), "steps 2 to 4"), ((2, 2), "step 2")])
def test_a_span_reads_as_said(span: tuple[int, int], words: str) -> None:
    assert Span(*span).describe() == words


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda: Span(0, 0), "first_step is 0; it must be between 1 and 200"), (lambda: Span(1, -1), "last_step is -1"),
    (lambda: Span(1, 201), "last_step is 201"), (lambda: plan(high=[Span(7, 0)]), "first_step of the LoRA h0 is 7, beyond the run of 6 steps"),
    (lambda: plan(low=[Span(2, 7)]), "last_step of the LoRA l0 is 7, beyond the run of 6 steps. Set it to 6 at most, or to 0"),
    (lambda: Guidance(1.0, 1.0, -1), "opening_steps is -1"), (lambda: Guidance(1.0, 1.0, 1, -2.0), "opening_guidance is -2.0"),
    (lambda: plan(guidance=Guidance(1.0, 1.0, 4)), "opening_steps is 4, but the high-noise expert takes 3 of the 6 steps. Set it to 3 at most"),
    (lambda: plan(Schedule("euler", 6, 5.0, 0.3), Guidance(1.0, 1.0, 1)), "takes none of the 6 steps. Set it to 0")])
def test_what_does_not_fit_the_run_is_named_with_limit_and_cure(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        wrong()


def test_an_opening_has_its_own_guidance_and_its_own_calls() -> None:
    made = plan(guidance=Guidance(1.0, 1.0, 2, 3.5))
    assert [step.guidance for step in made.steps] == [3.5, 3.5, 1.0, 1.0, 1.0, 1.0]
    assert made.calls() == (2, 2, 1, 1, 1, 1)
    assert made.needs_negative() and not plan().needs_negative()
    assert made.describe() == ("6 steps: 3 high (t 1000..909) + 3 low (t 833..501), guidance 3.5 for 2 steps, then 1.0 / 1.0, 8 model calls")
    assert "guidance 2.0 for 1 step, then" in plan(guidance=Guidance(1.0, 1.0, 1, 2.0)).describe()


def test_loras_that_come_and_go_stand_in_the_text_and_at_their_steps() -> None:
    made = plan(high=[Span(3, 0), Span(2, 2)], low=[Span(3, 0), Span(1, 5)])
    assert [step.loras for step in made.steps] == [(), (1,), (0,), (0, 1), (0, 1), (0,)]
    assert made.lora_changes() == {2: ["with h1"], 3: ["with h0", "without h1"], 6: ["without l1"]}
    assert made.describe().endswith("; high has h0 on step 3; high has h1 on step 2; low has l1 on steps 4 to 5")
    assert plan(high=[Span(4, 0)]).describe().endswith("; high has h0 on no step")


spans = st.builds(lambda first, length: Span(first, first + length), st.integers(1, 20), st.integers(0, 10))


@given(solver=st.sampled_from(sorted(SOLVERS)), steps=st.integers(31, 40), opening=st.integers(0, 8), scale=st.sampled_from([1.0, 3.5, 6.0]),
       high=st.lists(spans, max_size=2), low=st.lists(spans, max_size=2), acceleration=st.sampled_from(["regular", "high"]))
def test_no_forecast_looks_back_beyond_its_own_phase(solver: str, steps: int, opening: int, scale: float, high: list[Span], low: list[Span],
                                                     acceleration: str) -> None:
    made = plan(Schedule(solver, steps, 5.0), Guidance(scale, 4.0, opening, 3.5), acceleration, high, low)
    for stretch in made.stretches():
        assert len({step.phase for step in stretch}) == 1
        assert all(step.trend is None for step in stretch[:2])
    assert made.steps[-1].trend is None
    assert [step.phase for step in made.steps] == [step.phase for step in plan(Schedule(solver, steps, 5.0), Guidance(scale, 4.0, opening, 3.5),
                                                                                "none", high, low).steps]


def test_an_opening_costs_forecasts_and_no_more() -> None:
    default, opened = (plan(Schedule("unipc", 27, 5.0), Guidance(3.5, 4.0, opening, 6.0), "regular").model_calls() for opening in (0, 4))
    assert default < opened <= default + 8


def test_a_sampler_that_calls_when_it_likes_is_in_the_step_whose_level_it_has_reached() -> None:
    made = plan()
    sigmas = [step.sigma for step in made.steps]
    assert [made.number_at(sigma) for sigma in sigmas] == [1, 2, 3, 4, 5, 6]
    assert [made.number_at((before + after) / 2) for before, after in zip(sigmas, sigmas[1:], strict=False)] == [1, 2, 3, 4, 5]
    assert made.number_at(2.0) == 1 and made.number_at(0.001) == 6
