"""What the commands say: tables and lines, with colour in a terminal and plain in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

# Text of a game or a model is shown, never obeyed: a control character could recolour, clear or
# retitle the terminal.
_VISIBLE = {i: f"\\x{i:02x}" for i in (*range(32), *range(0x7F, 0xA0)) if chr(i) not in "\n\t"}
# Nor turned round: what changes the direction of text shows another text than there is. Halves of
# characters, which JSON may carry, could not be written at all.
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE |= {i: f"\\u{i:04x}" for i in (*_TURNING, 0x2028, 0x2029, *range(0xD800, 0xE000))}

_BARS = "▁▂▃▄▅▆▇█"

_WHOLE = 24  # characters; a column of longer texts is wrapped, by words
_READABLE = 20  # as narrow as such a column may become


def visible(text: str) -> str:
    """Return ``text`` with its control characters written out, line ends and tabs excepted."""
    return text.translate(_VISIBLE)


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{visible(text)}\n")
    sys.stdout.flush()  # a pipe shows a line when it happened, not when the command ended


def say_part(text: str) -> None:
    """Write a piece of a line to standard output, as it comes."""
    sys.stdout.write(visible(text))
    sys.stdout.flush()


def warn(text: str) -> None:
    """Write a line to standard error."""
    sys.stdout.flush()
    sys.stderr.write(f"{visible(text)}\n")


def width() -> int | None:
    """Return how many characters a line of the terminal has; None in a pipe, which bounds none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()
) -> None:
    """Write a table: drawn and wrapped to the width of a terminal, plain columns in a pipe.

    Args:
        columns: Their names.
        rows: A text for each column.
        spare: The columns that a narrow terminal goes without, the first first.
    """
    if sys.stdout.isatty():
        _draw(columns, rows, spare)
    else:
        for line in plain_table(columns, rows):
            say(line)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines, columns two spaces apart."""
    table = [[visible(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    table = [[visible(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    table.insert(1, ["---"] * len(columns))
    return [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in table]


def spark(values: Sequence[float], width: int = 30) -> str:
    """Return a curve as bars, from its lowest value to its highest; later values to the right.

    More values than ``width`` are taken together, each bar the mean of its share.
    """
    count = min(width, len(values))
    bounds = [len(values) * i // count for i in range(count + 1)] if count else []
    shares = [values[a:b] for a, b in pairwise(bounds)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if low == high:
        return _BARS[0] * len(means)
    return "".join(_BARS[int((m - low) / (high - low) * (len(_BARS) - 1))] for m in means)


def in_columns(cells: Sequence[str]) -> str:
    """Return short texts in as many columns as fit the terminal, read downwards."""
    width = max(map(len, cells), default=0) + 2
    across = max(1, shutil.get_terminal_size().columns // width)
    down = -(-len(cells) // across)
    lines = [cells[row::down] for row in range(down)]
    return "\n".join("".join(cell.ljust(width) for cell in line).rstrip() for line in lines)


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    cells = [[visible(cell) for cell in row] for row in rows]
    longest = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    kept, whole = _fitting(columns, longest, spare, console.width)
    table = Table(box=box.SIMPLE_HEAD)
    for i in kept:
        table.add_column(columns[i], overflow="fold", no_wrap=whole[i])
    for row in cells:
        table.add_row(*(Text(row[i]) for i in kept))  # Text: brackets are no markup
    console.print(table)


def _fitting(
    columns: Sequence[str], longest: Sequence[int], spare: Sequence[str], room: int
) -> tuple[list[int], list[bool]]:
    """Return which columns there is room for, and which of all stay whole.

    A number, a curve or a digest that is broken into lines cannot be read, nor can a name.
    """
    whole = [n <= _WHOLE or (i == 0 and n <= room // 2) for i, n in enumerate(longest)]
    needs = [n if kept else _READABLE for n, kept in zip(longest, whole, strict=True)]
    kept = list(range(len(columns)))
    for name in spare:
        if sum(needs[i] + 3 for i in kept) + 1 <= room:  # 3: the lines between, and the rims
            break
        kept.remove(columns.index(name))
    return kept, whole


def size(count: int | None) -> str:
    """Return a number of bytes for people: ``72.0 MB``; a question mark where it is not known."""
    if count is None:
        return "?"
    if count < 1e6:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


@contextmanager
def transfers() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield what is told what is moved, how many bytes of it are there, and of how many.

    On a terminal a bar each; in a pipe a line each, when all of it is there.
    """
    if not sys.stderr.isatty():
        yield lambda what, done, total: say(f"{what}: {size(done)}") if done == total else None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(file=sys.stderr)) as shown:

        def move(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = shown.add_task(escape(visible(what)))
            shown.update(bars[what], completed=done, total=total)

        yield move


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many are done of how many; a bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
