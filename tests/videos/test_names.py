"""Names: one is another's where it is its end, whichever folders lead to it."""

from pathlib import PurePosixPath

import pytest

from xelvad.pipeline.videos.names import NameIndex

NAMES = ["a.mp4", "b.mp4", "a.avi", "A.MP4", "a", "a.b.mp4", "a.b"]
FOLDERS = ["", "x/", "y/", "x/y/", "y/x/", "xy/"]


@pytest.mark.parametrize(
    ("stored", "name", "found"),
    [
        (["a.mp4"], "a.mp4", ["a.mp4"]),
        (["a.mp4"], "x/y/a.mp4", ["a.mp4"]),
        (["x/y/a.mp4"], "a.mp4", ["x/y/a.mp4"]),
        (["x/y/a.mp4"], "a", ["x/y/a.mp4"]),
        (["x/a"], "a.mp4", ["x/a"]),
        (["x/a.mp4"], "y/a.mp4", []),
        (["x/a.avi"], "a.mp4", []),
        (["x/a.mp4", "y/a.mp4"], "a.mp4", ["x/a.mp4", "y/a.mp4"]),
        (["a.mp4", "y/a.mp4"], "a.mp4", ["a.mp4"]),
        (["a.mp4", "y/a.mp4"], "x/y/a.mp4", ["y/a.mp4"]),
        (["x/a.mp4", "x/a.avi"], "a", ["x/a.avi", "x/a.mp4"]),
        (["x/a.b_label_A.mp4"], "a.b_label_A", ["x/a.b_label_A.mp4"]),
        ([], "a", []),
    ],
)
def test_a_name_is_found_in_whichever_layout(stored: list[str], name: str, found: list[str]) -> None:
    assert NameIndex(stored).find(name) == found


def test_what_is_found_is_what_comparing_all_names_finds() -> None:
    stored = [folder + name for folder in FOLDERS for name in NAMES]

    def ends(short: str, long: str) -> bool:
        return f"/{long}".endswith(f"/{short}")

    def bare(name: str) -> str:
        return name[:-4] if PurePosixPath(name).suffix.lower() in (".mp4", ".avi") else name

    def alike(one: str, other: str) -> bool:
        suffixes = {name[len(bare(name)) :].lower() for name in (one, other)} - {""}
        return len(suffixes) < 2 and (ends(bare(one), bare(other)) or ends(bare(other), bare(one)))

    for leave_out in stored:
        kept = [name for name in stored if name != leave_out]
        expected = [name for name in kept if alike(name, leave_out)]
        shared = {name: min(name.count("/"), leave_out.count("/")) for name in expected}
        most = [name for name in expected if shared[name] == max(shared.values())]
        assert NameIndex(kept).find(leave_out) == sorted(most)
