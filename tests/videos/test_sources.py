"""Searching folders: every real video once, and what is passed over is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.pipeline.videos.sources import printable, search

from ..helpers.footage import Footage


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path) -> list[str]:
    return [source.name for source in search([folder]).videos]


def passed_over(folder: Path) -> dict[str, str]:
    return {str(Path(path).relative_to(folder)): why for path, why in search([folder]).passed_over.items()}


def test_links_and_circles_of_links_lead_to_each_real_file_once(tmp_path: Path) -> None:
    touch(tmp_path / "all/b.mp4", tmp_path / "all/real/c.mp4", tmp_path / "elsewhere/d.mp4")
    (tmp_path / "all/real/loop").symlink_to("../real")
    (tmp_path / "all/again").symlink_to("real")
    (tmp_path / "all/a.mp4").symlink_to("b.mp4")
    (tmp_path / "all/top").symlink_to(".")
    (tmp_path / "all/other").symlink_to("../elsewhere")
    assert names(tmp_path / "all") == ["b.mp4", "other/d.mp4", "real/c.mp4"]
    assert passed_over(tmp_path / "all") == {}, "nothing is lost"


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("gone.mp4")
    assert names(tmp_path) == ["a.mp4"]
    assert passed_over(tmp_path) == {"b.mp4": "a link to nothing"}


def test_files_are_known_by_how_they_begin_where_their_names_do_not_tell(tmp_path: Path) -> None:
    for number, suffix in enumerate([".mp4", ".mkv", ".avi", ".ts", ".mpg", ".flv"]):
        codec = {".mpg": "mpeg2video", ".avi": "mpeg4"}.get(suffix, "libx264")
        Footage.video(tmp_path / f"{number}{suffix}", 5, codec=codec).rename(tmp_path / f"{number}")
    (tmp_path / "6.unknown").write_bytes(b"whatever this is")
    assert names(tmp_path) == [f"{number}" for number in range(6)]
    assert passed_over(tmp_path) == {"6.unknown": "neither a video nor a picture by its name or by how it begins"}


def test_texts_sound_and_what_systems_leave_behind_need_no_word(tmp_path: Path) -> None:
    touch(
        tmp_path / "a.mp4", tmp_path / "annotations.csv", tmp_path / "README.md", tmp_path / "a.wav", tmp_path / "a.npy"
    )
    touch(
        tmp_path / "Thumbs.db",
        tmp_path / "@eaDir/a.mp4/SYNO.jpg",
        tmp_path / ".hidden.mp4",
        tmp_path / "__MACOSX/b.mp4",
    )
    assert names(tmp_path) == ["a.mp4"]
    assert passed_over(tmp_path) == {}


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".webp", ".ppm", ".jpg"])
def test_a_folder_of_frames_is_one_in_spite_of_what_a_system_put_there(tmp_path: Path, suffix: str) -> None:
    Footage.folder(tmp_path / "frames", 3, suffix=suffix)
    touch(tmp_path / "frames/@eaDir/0.tif", tmp_path / "frames/Thumbs.db", tmp_path / "frames/labels.txt")
    assert names(tmp_path) == ["frames"]
    assert passed_over(tmp_path) == {}


def test_what_is_no_picture_among_frames_is_said(tmp_path: Path) -> None:
    Footage.folder(tmp_path / "frames", 3)
    touch(tmp_path / "frames/3.heic", tmp_path / "frames/notes.txt")
    assert names(tmp_path) == ["frames"]
    assert passed_over(tmp_path) == {"frames/3.heic": "no picture that can be read, in a folder of frames"}


def test_pictures_beside_videos_or_folders_are_said(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.jpg", tmp_path / "a/1.jpg", tmp_path / "a/b.mp4")
    assert names(tmp_path) == ["a/b.mp4"]
    found = search([tmp_path])
    assert found.lines == [
        f"passed over: {tmp_path}/a/0.jpg and 1 more "
        "(pictures beside videos or folders are no video: give them a folder of their own)"
    ]


def test_a_folder_that_may_not_be_looked_into_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "closed/b.mp4")
    look = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:  # as the system refuses everybody but root
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert names(tmp_path) == ["a.mp4"]
    assert list(passed_over(tmp_path)) == ["closed"]
    assert "Permission denied" in passed_over(tmp_path)["closed"]


def test_a_name_that_is_not_utf_8_is_set_aside_and_can_be_shown(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    found = search([tmp_path])
    assert [source.name for source in found.videos] == ["a.mp4"]
    (line,) = found.lines
    assert "its name is not UTF-8: rename it" in line
    line.encode()


@pytest.mark.parametrize(
    "name", ["two\nlines.mp4", "quote'\".mp4", "tab\t.mp4", "-rf.mp4", "$(reboot).mp4", "ü 日本.mp4"]
)
def test_names_are_data(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    assert names(tmp_path) == [name]
    assert "\n" not in printable(name)


def test_nothing_found_says_what_was_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("no video")
    with pytest.raises(UserError, match=r"no videos found in .*passed over: .*a\.xyz"):
        search([tmp_path])
