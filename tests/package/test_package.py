"""The package as a whole: what its wheel holds, which way its imports go, how large its modules are."""

from __future__ import annotations

import ast
import email
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ROOMS = ("extractors", "models", "pipeline")
MAX_LINES = 400

# What a room may import of the package.
OPEN_TO = {
    "models": {"models"},
    "extractors": {"errors", "extractors", "files"},
    "pipeline": {"__init__", "errors", "extractors", "files", "leases", "models", "pipeline", "processes", "schema"},
}

# The rooms of pipeline/ in the order of the data's way: each imports only those before it.
LAYERS = [
    *(
        "support",
        "footage",
        "videos",
        "datasets",
        "features",
        "cluster",
        "upkeep",
        "framewise",
        "scoring",
        "training",
        "evaluation",
        "reports",
    ),
    *("experiments", "commands", "cli"),
]
MAX_MODULES = 10
UNCOUNTED = "xelvad.pipeline.commands"  # a module for each command: a list, not a room to find one's way in


def _module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("xelvad", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {
    _module_of(path): path
    for path in sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
}


def imports(module: str) -> Iterator[str]:
    """Everything that a module imports, wherever in its text: modules of ours in full, of others the top-level name."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{origin}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else origin for name in names]
        else:
            continue
        yield from (name if name in MODULES else name.partition(".")[0] for name in names)


def part(module: str, depth: int) -> str:
    """The name at some depth: the room of `xelvad.pipeline.cli` (1) is `pipeline`, its stage (2) `cli`."""
    return [*module.split("."), "__init__", "__init__"][depth]


def modules_in(room: str) -> list[str]:
    return [module for module in MODULES if part(module, 1) == room]


def run_python(code: str, folder: Path, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    everything = os.environ | environment
    result = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("room", OPEN_TO)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module in modules_in(room)
        for target in imports(module)
        if target in MODULES and part(target, 1) not in OPEN_TO[room]
    ]
    assert not wrong


def test_models_need_nothing_but_torch() -> None:
    foreign = {name for module in modules_in("models") for name in imports(module) if name not in MODULES}
    assert foreign - sys.stdlib_module_names == {"torch"}


def test_every_room_imports_only_rooms_before_it() -> None:
    found = {part(module, 2) for module in modules_in("pipeline")} - {"__init__"}
    assert found == set(LAYERS), "a room has no place in LAYERS, or LAYERS names one that is gone"
    place = {room: number for number, room in enumerate(["__init__", *LAYERS])}
    wrong = [
        f"{module} imports {target}"
        for module in modules_in("pipeline")
        for target in imports(module)
        if target in MODULES and part(target, 1) == "pipeline" and place[part(target, 2)] > place[part(module, 2)]
    ]
    assert not wrong


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: {target for target in imports(module) if target in MODULES} for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_room_holds_more_than_ten_modules() -> None:
    rooms = Counter(
        module.rpartition(".")[0] for module, path in MODULES.items() if path.name != "__init__.py" and "." in module
    )
    too_many = {room: number for room, number in rooms.items() if number > MAX_MODULES and room != UNCOUNTED}
    assert not {room: number for room, number in too_many.items() if room.startswith("xelvad.pipeline")}


def test_the_command_line_waits_for_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from xelvad.pipeline import cli; cli.build_parser(); print(*sys.modules)"
    assert not {"torch", "av", "PIL", "scipy", "sklearn"} & set(run_python(code, tmp_path).split())


def test_no_module_passes_400_lines() -> None:
    lines = {module: len(path.read_text("utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: number for module, number in lines.items() if number > MAX_LINES}, "these ask to become two"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network in a copy of the sources, so that no earlier build can leak into it."""
    copy = tmp_path_factory.mktemp("sources")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
        elif path.name in (*ROOMS, "tests"):  # the tests, too: that they stay out of the wheel must mean something
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    run_python("from setuptools import build_meta; build_meta.build_wheel('dist')", copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    data = [
        *(ROOT / "pipeline" / "reports" / "assets").iterdir(),
        *(ROOT / "pipeline" / "training" / "recipes").glob("*/*.yaml"),
        ROOT / "pipeline" / "experiments" / "published.yaml",
    ]
    files = [*MODULES.values(), ROOT / "py.typed", *data]
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {f"xelvad/{path.relative_to(ROOT).as_posix()}" for path in files}


def test_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name]
        info = {name.partition(".dist-info/")[2]: archive.read(name).decode() for name in names}
    metadata = email.message_from_string(info["METADATA"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")
    assert info["licenses/LICENSE"] == (ROOT / "LICENSE").read_text("utf-8")
    assert info["entry_points.txt"].split("\n")[:2] == ["[console_scripts]", "xelvad = xelvad.pipeline.cli:main"]


def test_wheel_asks_for_no_torch_that_is_slow_in_three_dimensions(wheel: Path) -> None:
    """2.9 computes 3-D convolutions, which all clip networks are made of, without cuDNN (pytorch/pytorch#166122)."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        needed = [Requirement(text) for text in email.message_from_bytes(archive.read(name)).get_all("Requires-Dist")]
    (torch,) = (each.specifier for each in needed if each.name == "torch")
    versions = ["2.3.1", "2.4.0", "2.8.0", "2.9.0", "2.9.1", "2.10.0", "2.14.1"]
    assert list(torch.filter(versions)) == ["2.4.0", "2.8.0", "2.10.0", "2.14.1"]


def test_wheel_is_imported_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import xelvad.pipeline.cli as cli; print(cli.__file__)"
    printed = run_python(code, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert printed.strip() == str(tmp_path / "site" / "xelvad" / "pipeline" / "cli.py")
