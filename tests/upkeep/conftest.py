"""A features folder of three made-up videos."""

from pathlib import Path

import pytest

from ..helpers.features import file_features

NAMES = ("a.mp4", "day/b.mp4", "day/c.mp4")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "videos"


@pytest.fixture
def features(tmp_path: Path, videos: Path) -> Path:
    for name in NAMES:
        file_features(tmp_path / "features", name, videos / name)
    return tmp_path / "features"
