"""The index of a data folder: what was read is believed until the file changes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.envs import alfworld_index
from agentgym.envs.alfworld_files import GAME_FILE, TRAJECTORY_FILE
from agentgym.envs.alfworld_index import solvable_flags
from agentgym.errors import DataError

FLAGS = {"true": True, "false": False, "null": None}


@pytest.fixture
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """More games than are read without keeping an index, in a third each of the flags."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "games"
    for number in range(120):
        write(folder / f"task{number // 2:02}" / f"trial{number}", list(FLAGS)[number % 3])
    return folder


def write(game: Path, flag: str) -> None:
    game.mkdir(parents=True, exist_ok=True)
    (game / GAME_FILE).write_text(f'{{"grammar": "\\\\"solvable\\\\": x", "solvable": {flag}}}')
    (game / TRAJECTORY_FILE).write_text("{}")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The games whose file was read."""
    done: list[Path] = []
    real: Callable[[Path], bool | None] = alfworld_index._read_flag

    def watched(game: Path) -> bool | None:
        done.append(game)
        return real(game)

    monkeypatch.setattr(alfworld_index, "_read_flag", watched)
    return done


def test_every_game_is_listed_with_what_its_file_says(games: Path) -> None:
    expected = {f"task{n // 2:02}/trial{n}": list(FLAGS.values())[n % 3] for n in range(120)}
    assert solvable_flags(games) == expected
    assert solvable_flags(games) == expected


def test_a_file_that_did_not_change_is_read_once(games: Path, read: list[Path]) -> None:
    solvable_flags(games)
    assert len(read) == 120
    solvable_flags(games)
    assert len(read) == 120


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_file_that_changed_is_read_again(games: Path, read: list[Path], what: str) -> None:
    before = solvable_flags(games)
    game = games / "task00" / "trial0"
    assert before["task00/trial0"] is True
    if what == "size":
        state = (game / GAME_FILE).stat()
        write(game, "false")
        os.utime(game / GAME_FILE, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        write(game, "null")  # as long as true
        os.utime(game / GAME_FILE, ns=(1, 1))
    after = solvable_flags(games)
    assert after == before | {"task00/trial0": False if what == "size" else None}
    assert read[120:] == [game]


def test_games_that_came_and_went_are_noticed(games: Path) -> None:
    before = solvable_flags(games)
    write(games / "new" / "trial", "true")
    (games / "task01" / "trial2" / TRAJECTORY_FILE).unlink()
    after = solvable_flags(games)
    assert after.keys() ^ before.keys() == {"new/trial", "task01/trial2"}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"task00/trial0": [1]}', '{"x": 1}'])
def test_a_broken_index_is_made_again(games: Path, tmp_path: Path, content: str) -> None:
    before = solvable_flags(games)
    (index,) = (tmp_path / "cache").rglob("*.json")
    index.write_text(content)
    assert solvable_flags(games) == before
    assert len(json.loads(index.read_text())) == 120


def test_a_cache_that_cannot_be_written_is_done_without(games: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert len(solvable_flags(games)) == 120


def test_two_folders_have_two_indices(games: Path, tmp_path: Path, read: list[Path]) -> None:
    solvable_flags(games)
    games.rename(tmp_path / "moved")
    solvable_flags(tmp_path / "moved")
    assert len(read) == 240


def test_few_games_leave_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "games" / "one", "true")
    assert solvable_flags(tmp_path / "games") == {"one": True}
    assert not (tmp_path / "cache").exists()


def test_a_game_at_the_top_is_called_by_a_dot(tmp_path: Path) -> None:
    write(tmp_path, "true")
    assert solvable_flags(tmp_path) == {".": True}


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the folder .*No such file"):
        solvable_flags(tmp_path / "missing")
