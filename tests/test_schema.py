"""The checker of what strangers wrote: every kind of field takes what it should and names what it should not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from xelvad.errors import UserError
from xelvad.schema import Count, Name, PlainName, Range, Share, above_zero, parse, read_json


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Range(1, 9)]


@dataclass(frozen=True)
class Other:
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight > 100:
            raise ValueError("too heavy")


@dataclass(frozen=True)
class Everything:
    number: int
    flag: bool = False
    share: Share = 0.5
    rate: Annotated[float, above_zero] = 1.0
    count: Count | None = None
    name: Name = "a/b"
    plain: PlainName = "a"
    kind: Literal["one", 2] = "one"
    pair: tuple[int, str] = (1, "a")
    row: tuple[float, ...] = ()
    names: Sequence[str] = ()
    several: list[Inner] = field(default_factory=list)
    either: Inner | Other = field(default_factory=Other)
    table: Mapping[str, Inner] = field(default_factory=dict)
    anything: Any = None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("number", -5, -5), ("number", 2**63 - 1, 2**63 - 1), ("flag", True, True), ("share", 1, 1.0),
        ("rate", 1e-300, 1e-300), ("count", None, None), ("count", 0, 0), ("name", "x/y z/ü.mp4", "x/y z/ü.mp4"),
        ("plain", "ü b", "ü b"), ("kind", 2, 2), ("pair", [3, "b"], (3, "b")), ("row", [1, 2.5], (1.0, 2.5)),
        ("row", [], ()), ("names", ["a"], ("a",)), ("several", [{"size": 3}], [Inner(3)]), ("either", {}, Other()),
        ("either", {"size": 2}, Inner(2)), ("either", {"weight": 2}, Other(2.0)),
        ("table", {"a": {"size": 1}}, {"a": Inner(1)}),
        ("anything", {"a": [None]}, {"a": [None]}),
    ],
)  # fmt: skip
def test_what_fits_is_taken(key: str, value: object, expected: object) -> None:
    found = getattr(parse(Everything, {"number": 1} | {key: value}, "f.json", "mend it"), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("number", True, "number: must be a whole number, not True"),
        ("number", 1.0, "number: must be a whole number, not 1.0"),
        ("number", 10**4000, "number: must be a number below 2^63, not a number beyond 2^63"),
        ("number", None, "number: must be a whole number, not None"),
        ("flag", 1, "flag: must be true or false, not 1"),
        ("share", 1.01, "share: must lie in 0 to 1, not 1.01"),
        ("share", float("nan"), "share: must be a finite number, not nan"),
        ("share", float("-inf"), "share: must be a finite number, not -inf"),
        ("share", 10**400, "share: must be a number, not a number beyond 2^63"),
        ("rate", 0, "rate: must be above 0, not 0"),
        ("count", -1, "count: must be 0 or more, not -1"),
        ("name", "", "name: must be a relative path without .., not ''"),
        ("name", "a/../b", "name: must be a relative path without .., not 'a/../b'"),
        ("name", "/a", "name: must be a relative path without .., not '/a'"),
        ("name", "x" * 500 + "/../", "not 'xxxxx"),
        ("plain", "a/b", "plain: must be a plain name, not 'a/b'"),
        ("plain", "..", "plain: must be a plain name, not '..'"),
        ("kind", 2.0, "kind: must be 'one' or 2, not 2.0"),
        ("kind", ["one"], "kind: must be 'one' or 2, not a list (1)"),
        ("pair", [1], "pair: must have 2 values, not 1"),
        ("pair", ["a", 1], "pair[0]: must be a whole number, not 'a'"),
        ("row", "12", "row: must be a list, not '12'"),
        ("row", [1.5, float("nan")], "row[1]: must be a finite number, not nan"),
        ("names", {"a": 1}, "names: must be a list, not keys with values (1)"),
        ("several", [{"size": 1}, {"size": 10}], "several[1].size: must lie in 1 to 9, not 10"),
        ("several", [{}], "several[0]: key 'size' is missing"),
        ("either", {"size": 0}, "either.size: must lie in 1 to 9, not 0"),
        ("either", {"weight": 101}, "either: too heavy"),
        ("table", {"a": {"size": "1"}}, "table.a.size: must be a whole number, not '1'"),
        ("table", {1: {}}, "table: must be keys with values, not keys with values (1)"),
        ("more", 1, "unknown key 'more'"),
    ],
)
def test_what_does_not_fit_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Everything, {"number": 1} | {key: value}, "f.json", "mend it")
    assert str(caught.value).startswith("f.json: damaged (")
    assert str(caught.value).endswith("); mend it")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_field_without_a_check_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="there is no check for"):
        parse(dict[str, bytes], {"a": b""}, "f.json", "mend it")


def test_a_file_is_json_or_refused(tmp_path) -> None:
    path = tmp_path / "f.json"
    with pytest.raises(UserError, match=r"f\.json: missing; make it"):
        read_json(path, "mend it", missing="make it")
    for data in (b"", b"{", b"\xff", b"[" * 5000, b"1" * 5000, b"\xef\xbb\xbf{}"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"f\.json: broken \(.*\); mend it$"):
            read_json(path, "mend it", word="broken")
    with pytest.raises(UserError, match="damaged"):
        read_json(tmp_path, "mend it")
