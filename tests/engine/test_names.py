"""A prefix becomes a name that every file system takes, below the same folder, and as much of what was asked for as fits."""

import os
from datetime import datetime
from pathlib import Path, PureWindowsPath

import pytest

from engine.video import names
from engine.video.names import dated, inert, portable, shortened

SUFFIX = "_0000001_.webm.part"
NOW = datetime(2026, 3, 5, 7, 8, 9)  # noqa: DTZ001 # as a clock on the wall shows it


@pytest.mark.parametrize(("asked", "filled"), [
    ("%date:yyyy-MM-dd%", "2026-03-05"), ("%date:yy-M-d_h-m-s%", "26-3-5_7-8-9"), ("a/%date:hhmmss%/b", "a/070809/b"),
    ("%date:dd.MM.yyyy%x", "05.03.2026x"),
    ("%date:%", ""), ("%date%", "%date%"), ("100%", "100%"), ("%width%x%height%", "%width%x%height%"), ("%date:yyyy", "%date:yyyy"),
    ("%date:yyy%", "yyy"), ("%date:yyyy%_%date:dd%", "2026_05")])
def test_dates_are_written_as_the_front_end_does(asked: str, filled: str) -> None:
    assert dated(asked, NOW) == filled


@pytest.mark.parametrize("character", [*'<>:"|?*', *map(chr, range(32)), "\x7f", "\ud800", "\udfff"])
def test_characters_that_some_file_system_lacks_are_replaced(tmp_path: Path, character: str) -> None:
    prefix = portable(f"fold{character}er/na{character}me")
    assert prefix == "fold_er/na_me"


@pytest.mark.parametrize(("asked", "portable_name"), [
    ("video\\Wan", "video/Wan"), ("a./b ", "a/b "), (".../x", "_/x"), ("../x", "../x"), ("./x", "./x"), ("/x", "/x"),
    ("con/x", "_con/x"), ("NUL", "_NUL"),
    ("com1.txt/x", "_com1.txt/x"), ("console/x", "console/x"),
    ("\u72d0\u72f8/\U0001f98a", "\u72d0\u72f8/\U0001f98a"), ("50% done", "50% done"), ("", "")])
def test_names_that_windows_reads_otherwise_are_changed_and_others_are_not(asked: str, portable_name: str) -> None:
    assert portable(asked) == portable_name


@pytest.mark.parametrize("asked", ["a" * 1000, "\u72d0" * 1000, "\U0001f98a" * 99, "f" * 300 + "/" + "n" * 300, "short"])
def test_names_of_any_length_can_be_written(tmp_path: Path, asked: str) -> None:
    short = shortened(asked, tmp_path, SUFFIX)
    path = tmp_path / f"{short}{SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert all(asked_part.startswith(part) for part, asked_part in zip(short.split("/"), asked.split("/"), strict=True))
    assert len(path.name.encode()) > 250 or short == asked


def test_a_path_as_long_as_windows_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_CHARACTERS", 259)
    deep = Path("C:/" + "f" * 150)
    assert len(str(deep / shortened("clips/" + "n" * 300, deep, SUFFIX)) + SUFFIX) == 259
    with pytest.raises(ValueError, match="more than 259 characters; name fewer or shorter folders"):
        shortened("clips/" * 30 + "name", deep, SUFFIX)


def test_a_file_system_may_take_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathconf", lambda *_: 143, raising=False)
    assert len(shortened("n" * 300, tmp_path, SUFFIX) + SUFFIX) == 143


def test_a_value_in_a_name_leads_to_no_folder() -> None:
    value = inert("C:\\models/wan*.safetensors\n")
    assert value == "C__models_wan_.safetensors_" and len(PureWindowsPath(value).parts) == 1
    assert (inert(7), inert(3.5), inert(True)) == ("7", "3.5", "True")
