"""What strangers wrote, held against the types of a dataclass before anything is made of it.

Files that others made may hold anything: a list instead of a number, a number of a thousand digits, NaN, nothing.
`parse` turns plain values, as JSON and YAML give them, into dataclasses by their field types, and refuses everything
else in one line that names the file and the key. Bounds stand at the fields: ``Annotated[int, Range(0, 100)]``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UserError

T = TypeVar("T")

LARGEST = 2**63 - 1  # of any whole number: what NumPy can count
MAX_BYTES = 1 << 30  # of a JSON file: one with a time for each of a month's frames is smaller
SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included."""

    low: float
    high: float = LARGEST

    def __call__(self, value: Any) -> str | None:
        """What is wrong with a value; None where nothing is."""
        if self.low <= value <= self.high:
            return None
        return f"must be {self.low} or more" if self.high == LARGEST else f"must lie in {self.low} to {self.high}"


def above_zero(value: Any) -> str | None:
    """The check of a number that something is divided by."""
    return None if value > 0 else "must be above 0"


def inner_name(value: str) -> str | None:
    """The check of a name that becomes a path: it may not lead out of its folder."""
    path = PurePosixPath(value)
    inner = path.parts and not path.is_absolute() and ".." not in path.parts and "\0" not in value
    return None if inner else "must be a relative path without .."


def _no_null(value: str) -> str | None:
    return "cannot be a path" if "\0" in value else None


def plain_name(value: str) -> str | None:
    """The check of a name that becomes one part of a path."""
    return "must be a plain name" if "/" in value or "\\" in value or inner_name(value) else None


Name = Annotated[str, inner_name]
PlainName = Annotated[str, plain_name]
Count = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]


class _WrongError(Exception):
    """A value that is not what its key stands for."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)


def read_json(path: Path, advice: str, missing: str = "", word: str = "damaged") -> Any:
    """The plain value that a JSON file holds.

    Args:
        path: of the file.
        advice: what to do about a file that is damaged.
        missing: what to do where there is none, if that is something else.
        word: for a file that is damaged.

    Raises:
        UserError: missing, too large, nested too deeply, or not JSON in UTF-8; names the file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, more than any such file has")
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {missing or advice}") from error
    except RecursionError as error:
        raise UserError(f"{path}: {word} (nested too deeply); {advice}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {word} ({' '.join(str(error).split())}); {advice}") from error


def parse(kind: type[T], value: Any, where: object, advice: str, word: str = "damaged") -> T:
    """A plain value as ``kind``, a dataclass or any type that a field of one may have.

    Args:
        kind: what it must be. Fields with a default may be missing; unknown keys may not be there.
        value: of JSON or YAML: dictionaries, lists, text, numbers, None.
        where: it stands, for people: a file.
        advice: what to do about a wrong one.
        word: for a wrong one.

    Raises:
        UserError: it is not; names the place and the key.
    """
    try:
        found: T = _parsed(kind, value, "")
    except _WrongError as error:
        raise UserError(f"{where}: {word} ({error}); {advice}") from error
    except RecursionError as error:
        raise UserError(f"{where}: {word} (nested too deeply); {advice}") from error
    return found


def _parsed(kind: Any, value: Any, key: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, key)
    composed = _COMPOSED.get(get_origin(kind))
    return _plain(kind, value, key) if composed is None else composed(get_args(kind), value, key)


def _annotated(arguments: tuple[Any, ...], value: Any, key: str) -> Any:
    found = _parsed(arguments[0], value, key)
    for check in arguments[1:]:
        _apply(check, found, value, key)
    return found


def _literal(arguments: tuple[Any, ...], value: Any, key: str) -> Any:
    if not any(type(value) is type(choice) and value == choice for choice in arguments):
        raise _WrongError(key, f"must be {' or '.join(map(repr, arguments))}, not {shown(value)}")
    return value


def _mapping(arguments: tuple[Any, ...], value: Any, key: str) -> Any:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _WrongError(key, f"must be keys with values, not {shown(value)}")
    return {name: _parsed(arguments[1], item, _joined(key, name)) for name, item in value.items()}


def _apply(check: Callable[[Any], str | None], found: Any, value: Any, key: str) -> None:
    reason = check(found)
    if reason is not None:
        raise _WrongError(key, f"{reason}, not {shown(value)}")


def _plain(kind: Any, value: Any, key: str) -> Any:
    """Text, numbers, truth values and None: of the very type, but that whole numbers are numbers, too."""
    if kind in (None, type(None)):
        if value is not None:
            raise _WrongError(key, f"must be nothing, not {shown(value)}")
        return None
    if kind is Path:
        return Path(_annotated((str, _no_null), value, key))
    if kind is float and type(value) is int and abs(value) <= LARGEST:
        return float(value)
    if kind not in _WORDS:
        raise TypeError(f"{key}: there is no check for {kind}")
    if type(value) is not kind:
        raise _WrongError(key, f"must be {_WORDS[kind]}, not {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _WrongError(key, f"must be a finite number, not {value}")
    if kind is int and abs(value) > LARGEST:
        raise _WrongError(key, f"must be a number below 2^63, not {shown(value)}")
    return value


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _one_of(arguments: tuple[Any, ...], value: Any, key: str) -> Any:
    """The first kind that fits; if none does, what is wrong by the one that it resembles most."""
    if value is None and type(None) in arguments:
        return None
    errors = []
    for kind in arguments:
        if kind is not type(None):
            try:
                return _parsed(kind, value, key)
            except _WrongError as error:
                errors.append((_shared(kind, value), error))
    raise max(errors, key=lambda pair: pair[0])[1]


def _shared(kind: Any, value: Any) -> int:
    """How many keys of a value are fields of a dataclass."""
    if not dataclasses.is_dataclass(kind) or not isinstance(value, dict):
        return 0
    return len({field.name for field in dataclasses.fields(kind)} & {name for name in value if isinstance(name, str)})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _record(kind: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise _WrongError(key, f"must be keys with values, not {shown(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = [name for name in value if name not in fields]
    if unknown:
        raise _WrongError(key, f"unknown key {shown(unknown[0])}")
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise _WrongError(key, f"key {name!r} is missing")
    hints = _hints(kind)
    made = {name: _parsed(hints[name], item, _joined(key, name)) for name, item in value.items()}
    try:
        return kind(**made)
    except (UserError, ValueError) as error:
        raise _WrongError(key, str(error)) from error


def _list(arguments: tuple[Any, ...], value: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _WrongError(key, f"must be a list, not {shown(value)}")
    if arguments[0] is float and all(type(item) is float for item in value) and all(map(math.isfinite, value)):
        return list(value)  # what is said below of each, for a time of every frame
    return [_parsed(arguments[0], item, f"{key}[{place}]") for place, item in enumerate(value)]


def _tuple(arguments: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    if arguments[-1] is ... or not isinstance(value, list | tuple):
        return tuple(_list(arguments, value, key))
    if len(value) != len(arguments):
        raise _WrongError(key, f"must have {len(arguments)} values, not {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_parsed(kind, item, f"{key}[{place}]") for place, (kind, item) in enumerate(pairs))


_COMPOSED: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    Annotated: _annotated,
    Union: _one_of,
    types.UnionType: _one_of,
    Literal: _literal,
    tuple: _tuple,
    list: _list,
    Sequence: lambda arguments, value, key: tuple(_list(arguments, value, key)),
    dict: _mapping,
    Mapping: _mapping,
}


def _joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def shown(value: Any) -> str:
    """A wrong value in one line, however long it is."""
    if isinstance(value, dict | list | tuple):
        return f"{'keys with values' if isinstance(value, dict) else 'a list'} ({len(value)})"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number beyond 2^63"
    text = repr(value[:SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
