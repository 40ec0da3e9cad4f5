"""Tables that people wrote, by hand or with a spreadsheet: rows with their places, or one line about what is wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...schema import shown

MAX_BYTES = 1 << 28  # a million videos take less
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Row:
    """One row: where it stands, such as ``labels.csv, line 3``, and what is in its cells, by column."""

    where: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A file's rows.

    Attributes:
        header: where the header stands.
        columns: their names.
        rows: without those that are empty.
        data: the file's bytes.
    """

    header: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    data: bytes


def read_table(path: Path, what: str, example: str) -> Table:
    """Read a CSV file in UTF-8, with or without a byte order mark, with any ends of lines.

    Cells at the end of a row may be missing and are empty then; blanks around a cell do not count.

    Args:
        path: the file.
        what: it is, for people.
        example: a header as it should be, for people.

    Raises:
        UserError: not readable, or no such table; names the line and what is expected.
    """
    data = read_limited(path, what)
    expected = f"expected is CSV in UTF-8 with a header such as {example}"
    numbered = _rows(path, text_of(path, data, f"not a CSV file in UTF-8: {expected}"), expected)
    if not numbered:
        raise UserError(f"{path}, line 1: {what} names no videos and has no header; {expected}")
    (line, header), *rows = numbered
    where = f"{path}, line {line}"
    _check_header(where, header, expected)
    found = []
    for number, cells in rows:
        place = f"{path}, line {number}"
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise UserError(
                f"{place}: {len(cells)} cells, but the header has {len(header)}: put a cell with a comma in it between "
                "quotation marks"
            )
        filled = [*cells, *[""] * (len(header) - len(cells))]
        found.append(Row(place, {name: cell for name, cell in zip(header, filled, strict=False) if name}))
    return Table(where, tuple(filter(None, header)), tuple(found), data)


def read_limited(path: Path, what: str) -> bytes:
    """The bytes of a text file.

    Raises:
        UserError: not readable, or too large to be one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read {what} ({reason})") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES >> 20} MiB; this is not {what}")
    return data


def text_of(path: Path, data: bytes, expected: str) -> str:
    """The text that bytes are in UTF-8.

    Raises:
        UserError: they are not; names the line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}, line 1: this is UTF-16, {expected}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {_line_at(data, error.start)}: {error.reason}, {expected}") from error
    if "\0" in text:
        line = _line_at(data, data.index(b"\0"))
        raise UserError(f"{path}, line {line}: zero bytes, as of UTF-16 or of a file that is no text, {expected}")
    return text


def _line_at(data: bytes, place: int) -> int:
    return len(data[:place].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))


def _rows(path: Path, text: str, expected: str) -> list[tuple[int, list[str]]]:
    """The cells of each row that has any, with the number of its line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any("\n" in cell or "\r" in cell for cell in stripped):
                raise UserError(f"{path}, line {line}: a cell of several lines: is a quotation mark open? {expected}")
            if any(stripped):
                rows.append((line, stripped))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {error}: is a quotation mark open? {expected}") from error
    return rows


def _check_header(where: str, header: Sequence[str], expected: str) -> None:
    if header[0].startswith("#"):
        raise UserError(f"{where}: a comment where the header should stand; {expected}")
    other = next((name for sign, name in SEPARATORS.items() if len(header) == 1 and sign in header[0]), None)
    if other:
        raise UserError(f"{where}: cells are separated by {other}, not by commas; {expected}")
    twice = sorted({name for name in header if name and list(header).count(name) > 1})
    if twice:
        raise UserError(f"{where}: the column {shown(twice[0])} stands there twice; {expected}")
