"""The checkout as a new user has it: `make check` passes whatever the folder is called, and wherever it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def copy_of_tree(folder: Path) -> Path:
    """The working tree, as a clone of it would be: what git tracks, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def make_check(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """`make check` in a copy, by the tools of this environment; mypy's knowledge of torch is shared by all."""
    return subprocess.run(
        ["make", "--old-file", ".venv/.ready", "check", f"BIN={Path(sys.executable).parent}"],
        cwd=folder,
        env=os.environ | {"MYPY_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("name", ["xelvad", "elsewhere", "with a space/xelvad"])
def test_the_checks_pass_whatever_the_folder_is_called(name: str, tmp_path: Path, cache: Path) -> None:
    result = make_check(copy_of_tree(tmp_path / name), cache)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('import sys\nimport os\n\n__all__ = ["os", "sys"]\n', "I001"),
        ('WRONG: int = ""\n', "pipeline/wrong.py:3: error"),
    ],
)
def test_the_checks_look_at_that_folder(wrong: str, said: str, tmp_path: Path, cache: Path) -> None:
    """Or the test above could not fail: the environment knows another checkout, this one, as `xelvad`."""
    folder = copy_of_tree(tmp_path / "elsewhere")
    (folder / "pipeline" / "wrong.py").write_text(f'"""Wrong."""\n\n{wrong}')
    result = make_check(folder, cache)
    assert result.returncode != 0
    assert said in result.stdout
