"""Looking a user's choice up in a table, with an error that lists what the table holds."""

from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar("T")


def check_choice(name: str, value: str, options: Collection[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} is '{value}'; choose one of: {', '.join(options)}.")


def choose(name: str, value: str, table: Mapping[str, T]) -> T:
    check_choice(name, value, table)
    return table[value]


def check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be between {low} and {high}.")
