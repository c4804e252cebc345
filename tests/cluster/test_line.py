"""The waiting line: a higher priority first, then first come, first served; and everybody knows how many are ahead."""

import random

from cluster.gateway.line import WaitingLine


def test_it_is_a_list_that_is_sorted() -> None:
    chance, line, model = random.Random(0), WaitingLine(), list[tuple[int, float, str]]()
    for arrival in range(2000):
        move, name, priority = chance.choice(["join", "leave"]), str(chance.randrange(30)), chance.randint(-1, 1)
        waits = any(name == place[2] for place in model)
        if move == "join" and not waits:
            line.join(name, priority, arrival)
            model = sorted([*model, (-priority, float(arrival), name)])
        elif move == "leave":
            assert line.leave(name) == waits
            model = [place for place in model if place[2] != name]
        assert line.first() == (model[0][2] if model else None) and len(line) == len(model)
        for ahead, place in enumerate(model):
            assert place[2] in line and line.ahead_of(place[2]) == ahead


def test_who_waits_has_one_place() -> None:
    line = WaitingLine()
    line.join("a", 0, 1)
    try:
        line.join("a", 0, 2)
    except ValueError as error:
        assert "a waits already" in str(error)
    else:
        raise AssertionError("two places")


def test_who_comes_back_has_the_place_of_before() -> None:
    line = WaitingLine()
    for arrival, name in enumerate("abc"):
        line.join(name, 0, arrival)
    line.leave("a")
    line.join("a", 0, 0)
    assert (line.first(), line.ahead_of("c")) == ("a", 2)
