"""Resuming: a training that is killed at any moment, and goes on, leaves the same bytes as one that never stopped."""

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xelvad.errors import UserError
from xelvad.models import DETECTORS, LearningDetector
from xelvad.pipeline.cli import main
from xelvad.pipeline.training.checkpoints import check_identity, read_state, write_state
from xelvad.pipeline.training.config import TrainingConfig
from xelvad.pipeline.training.train import LEASE, plain

from ..helpers.features import write_dataset

TRAININGS = {
    f"{detector}-{mode}": ["--detector", detector, "--xel", mode, "--until-learned", "false"]
    for detector in ("mil", "srf", "ar-net")
    for mode in ("off", "epoch", "batch")
}
TRAININGS |= {
    f"{name}-epoch": ["--detector", name, "--xel", "epoch", "--until-learned", "false"]
    for name, kind in DETECTORS.items()
    if issubclass(kind, LearningDetector)
}
TRAININGS |= {"mil-until-learned": ["--detector", "mil", "--xel", "epoch", "--learning-rate", "1e-5"]}
QUICK = ["--iterations", "14", "--batch", "2", "--evaluations", "7"]

# In another process: trainings that kill themselves when a function is called for the n-th time. Checkpoints are
# written after every fourth iteration, told by a clock that ticks whenever it is looked at.
KILLED = """
import itertools, json, os, signal, sys
import torch
import torch._dynamo  # which the first optimiser would import, in every child anew
from xelvad.pipeline import cli
from xelvad.pipeline.scoring import runs
from xelvad.models import DETECTORS, LearningDetector
from xelvad.pipeline.training import checkpoints, train as training

torch.set_num_threads(1)
checkpoints.SECONDS = 3
LEARNING = [kind for kind in DETECTORS.values() if issubclass(kind, LearningDetector)]
PLACES = {"step": (LEARNING, "loss"), "fsync": ([os], "fsync"), "result": ([runs], "write_text")}


def kill_at(place, call):
    owners, name = PLACES[place]
    calls = itertools.count(1)

    def counting(original):
        def counted(*arguments, **options):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return counted

    for owner in owners:
        setattr(owner, name, counting(getattr(owner, name)))


for arguments, moment in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        checkpoints.clock = itertools.count().__next__
        kill_at(*moment)
        os._exit(cli.main(arguments))
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (arguments, moment, status)
"""

MOMENTS = {
    "before the first checkpoint": ("step", 2),
    "right after a checkpoint": ("step", 9),
    "between two checkpoints": ("step", 12),
    "while a checkpoint is written": ("fsync", 5),  # the third: a file and its folder each
    "while the results are written": ("result", 2),
}
KILLS = [("srf-batch", moment) for moment in MOMENTS] + [
    (name, "between two checkpoints") for name in TRAININGS if name != "srf-batch"
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_dataset(folder)
    return folder


def command(folder: Path, name: str, out: Path, *more: str) -> list[str]:
    data = ["--manifest", f"{folder}/labels.csv", "--features", f"{folder}/features"]
    return ["train", *data, "--out", str(out), *TRAININGS[name], *QUICK, *more]


@pytest.fixture(scope="module")
def killed(folder: Path) -> Callable[[str, str], Path]:
    """What a training leaves behind that is killed at some moment; a copy of it, to do with as one likes."""
    places = {kill: folder / "killed" / "-".join(kill).replace(" ", "-") for kill in KILLS}
    kills = [(command(folder, name, out), MOMENTS[moment]) for (name, moment), out in places.items()]
    result = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(kills)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr

    def copy_of(name: str, moment: str) -> Path:
        out = folder / f"copy-{random.getrandbits(64)}"
        shutil.copytree(places[name, moment], out)
        return out

    return copy_of


@pytest.fixture(scope="module")
def whole(folder: Path) -> Callable[[str], Path]:
    """A training that was never interrupted, once for all tests."""

    def made(name: str) -> Path:
        out = folder / "whole" / name
        if not out.exists():
            assert main(command(folder, name, out)) == 0
        return out

    return made


def files_of(run: Path) -> dict[str, bytes]:
    """All files but TensorBoard's, which carry the time."""
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def everything_in(run: Path) -> dict[Path, bytes]:
    """All but the lease of a killed training, which goes with the next one, refused or not."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LEASE}


def assert_same_files(run: Path, expected: Path) -> None:
    ours, theirs = files_of(run), files_of(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "moment"), KILLS)
def test_a_killed_training_goes_on_to_the_same_bytes(
    folder: Path, killed: Callable[[str, str], Path], whole: Callable[[str], Path], name: str, moment: str
) -> None:
    out = killed(name, moment)
    assert not (out / "manifest.json").exists()
    state = read_state(out)
    iteration = {"before": None, "right": 8, "between": 8, "while a": 8, "while the": 14}
    (expected,) = (value for key, value in iteration.items() if moment.startswith(f"{key} "))
    assert (state["iteration"] if state else None) == expected
    assert main(command(folder, name, out, "--resume")) == 0
    assert_same_files(out, whole(name))


def test_a_training_killed_from_outside_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """At whatever the process happens to do, with a checkpoint after every iteration."""
    out, longer = tmp_path / "run", ["--iterations", "100"]
    driver = (
        "import sys, torch; from xelvad.pipeline import cli; from xelvad.pipeline.training import checkpoints;"
        "torch.set_num_threads(1);"
        "checkpoints.SECONDS = 0; sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = command(folder, "ar-net-epoch", out, *longer)
    process = subprocess.Popen([sys.executable, "-c", driver, *arguments], stderr=subprocess.DEVNULL)
    seen: set[int] = set()
    while process.poll() is None and len(seen) < 12:
        if (out / "state.pt").exists():
            seen.add((out / "state.pt").stat().st_mtime_ns)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 12 <= read_state(out)["iteration"] < 100
    assert main(command(folder, "ar-net-epoch", out, *longer, "--resume")) == 0
    assert main(command(folder, "ar-net-epoch", tmp_path / "whole", *longer)) == 0
    assert_same_files(out, tmp_path / "whole")


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("moment", ["before the first checkpoint", "between two checkpoints"])
def test_curves_have_every_step_once(folder: Path, killed: Callable[[str, str], Path], moment: str) -> None:
    name = "srf-batch"
    out = killed(name, moment)
    time.sleep(1)  # TensorBoard orders its files by the second at which they were begun
    assert main(command(folder, name, out, "--resume")) == 0
    assert main(command(folder, name, out.with_name(f"{out.name}-whole"))) == 0
    resumed, never_stopped = curves_of(out), curves_of(out.with_name(f"{out.name}-whole"))
    assert len(list((out / "tensorboard").iterdir())) == 2
    assert resumed == never_stopped
    assert len(resumed["judged/test"]) == 7


def test_resuming_what_is_finished_changes_nothing(folder: Path, whole: Callable[[str], Path]) -> None:
    for name in ("mil-batch", "srf-epoch"):
        before = files_of(whole(name))
        assert main(command(folder, name, whole(name), "--resume")) == 0
        assert files_of(whole(name)) == before


def test_resuming_where_there_is_nothing_begins(folder: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    assert main(command(folder, "mil-epoch", tmp_path / "run", "--resume")) == 0
    assert_same_files(tmp_path / "run", whole("mil-epoch"))


def test_seeds_go_on_where_the_first_of_them_stopped(
    folder: Path, killed: Callable[[str, str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.move(killed("mil-epoch", "between two checkpoints"), tmp_path / "seed-0")
    for _ in range(2):
        assert main(command(folder, "mil-epoch", tmp_path, "--seeds", "2", "--resume")) == 0
        assert_same_files(tmp_path / "seed-0", whole("mil-epoch"))
    assert (tmp_path / "seed-1" / "manifest.json").exists()


# --- refusing to ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(killed: Callable[[str, str], Path]) -> Path:
    return killed("mil-epoch", "between two checkpoints")


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that is refused with one line, and changes nothing in a folder; gives the line."""

    def refusal(out: Path, arguments: list[str]) -> str:
        before = everything_in(out)
        capsys.readouterr()
        assert main(arguments) == 2
        assert everything_in(out) == before
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refusal


def test_an_unfinished_training_is_not_begun_anew_unasked(folder: Path, unfinished: Path, refused: Refused) -> None:
    line = refused(unfinished, command(folder, "mil-epoch", unfinished))
    assert "holds an unfinished training; --resume goes on with it" in line


def test_a_training_without_a_checkpoint_is_begun_anew_without_its_curves(
    folder: Path, killed: Callable[[str, str], Path], whole: Callable[[str], Path]
) -> None:
    out = killed("srf-batch", "before the first checkpoint")
    assert main(command(folder, "srf-batch", out)) == 0
    assert_same_files(out, whole("srf-batch"))
    assert len(list((out / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--xel.warmup", "0.2"], ["xel.warmup was 0.15, now is 0.2"]),
        (["--seed", "1", "--learning-rate", "0.1"], ["seed was 0, now is 1", "learning_rate was 0.001, now is 0.1"]),
        (["--xel.margins", "[0.5, 0.7]"], ["xel.margins was [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], now is [0.5, 0.7]"]),
        (["--detector", "srf"], ["detector was mil, now is srf", "bags.segments was 32, now is 0"]),
    ],
)
def test_another_configuration_is_named_with_both_values(
    folder: Path, unfinished: Path, refused: Refused, change: list[str], said: list[str]
) -> None:
    line = refused(unfinished, command(folder, "mil-epoch", unfinished, *change, "--resume"))
    assert "cannot go on" in line
    for words in said:
        assert words in line


@pytest.fixture
def other_data(folder: Path, tmp_path: Path) -> Path:
    """The data that the trainings began with, to change."""
    shutil.copytree(folder / "features", tmp_path / "features")
    shutil.copy(folder / "labels.csv", tmp_path)
    return tmp_path


def resumed(data: Path, out: Path) -> list[str]:
    return command(data, "mil-epoch", out, "--resume")


def test_moved_data_are_the_same_data(other_data: Path, unfinished: Path, whole: Callable[[str], Path]) -> None:
    data = other_data.rename(other_data.with_name(f"{other_data.name}-moved"))
    assert main(resumed(data, unfinished)) == 0
    for name in ("detector.safetensors", "best_on_test.safetensors", "bank.json", "metrics.json", "state.pt"):
        assert (unfinished / name).read_bytes() == (whole("mil-epoch") / name).read_bytes(), name


def test_other_labels_are_refused(other_data: Path, unfinished: Path, refused: Refused) -> None:
    labels = other_data / "labels.csv"
    labels.write_text(labels.read_text().replace("video_10.mp4,train,0", "video_10.mp4,train,1"))
    line = refused(unfinished, resumed(other_data, unfinished))
    assert "cannot go on, because labels was" in line


def test_other_training_videos_are_named(other_data: Path, unfinished: Path, refused: Refused) -> None:
    labels = other_data / "labels.csv"
    labels.write_text(labels.read_text().replace("video_10.mp4,train", "video_10.mp4,test"))
    line = refused(unfinished, resumed(other_data, unfinished))
    assert "features was " in line
    assert re.search(r"training_videos was \[.*video_10.mp4.*\], now is \[((?!video_10.mp4).)*\]", line)


def test_features_of_other_footage_are_refused(other_data: Path, unfinished: Path, refused: Refused) -> None:
    path = other_data / "features" / "i3d-rgb" / "video_05.mp4.json"
    path.write_text(path.read_text().replace("digest of video_05.mp4", "digest of another"))
    line = refused(unfinished, resumed(other_data, unfinished))
    assert "features was " in line
    assert "labels" not in line


def test_a_training_whose_test_videos_can_no_longer_be_followed_is_refused(
    other_data: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other_data / "features" / "i3d-rgb" / "video_00.mp4.json").unlink()
    before = everything_in(unfinished)
    assert main(resumed(other_data, unfinished)) == 2
    assert "judges was ['validation', 'test'], now is ['validation']" in capsys.readouterr().err
    assert everything_in(unfinished) == before


@pytest.mark.parametrize("name", ["mil-epoch", "svm"])
def test_a_finished_run_without_a_checkpoint_is_not_replaced_by_another(
    folder: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(TRAININGS, "svm", ["--detector", "svm"])
    assert main(command(folder, name, tmp_path / "run")) == 0
    (tmp_path / "run" / "state.pt").unlink(missing_ok=True)
    line = refused(tmp_path / "run", command(folder, name, tmp_path / "run", "--seed", "1", "--resume"))
    assert "seed was 0, now is 1" in line
    before = files_of(tmp_path / "run")
    assert main(command(folder, name, tmp_path / "run", "--resume")) == 0
    assert {path: data for path, data in files_of(tmp_path / "run").items() if path != "state.pt"} == before


def test_a_long_list_is_told_by_its_changes() -> None:
    videos = [f"{number}.mp4" for number in range(800)]
    with pytest.raises(UserError) as refusal:
        check_identity(Path("run"), {"videos": videos}, {"videos": [*videos[10:], "new.mp4"]})
    assert "videos changed: -0.mp4, -1.mp4, -2.mp4, -3.mp4, -4.mp4, -5.mp4 and 5 more;" in str(refusal.value)
    with pytest.raises(UserError, match="videos changed in order;"):
        check_identity(Path("run"), {"videos": videos}, {"videos": videos[::-1]})


def test_what_was_trained_before_an_option_existed_was_trained_as_its_default_is() -> None:
    now = plain(asdict(TrainingConfig(options={"margin": 2.0})))
    before = deepcopy(now)
    del before["xel"]["rows"], before["until_learned"]
    check_identity(Path("run"), {"config": before}, {"config": now})
    now["xel"]["rows"] = 16
    with pytest.raises(UserError, match=r"config\.xel\.rows was None, now is 16;"):
        check_identity(Path("run"), {"config": before}, {"config": now})


# --- damage -----------------------------------------------------------------------------------------------------------


def same(one: object, other: object) -> bool:
    """Equal to the bit, also tensors within lists and dicts."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = {
        "identity": {"a": [1, "b"]},
        "tensors": [torch.rand(3), torch.arange(2)],
        "betas": (0.5, 0.9),
        "nothing": None,
    }
    write_state(tmp_path, state)
    assert same(read_state(tmp_path), state)
    assert read_state(tmp_path / "elsewhere") is None


def test_what_was_read_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    """Pickle tells apart whether equal strings are one object, which they no longer are once they were read."""
    name = "a name"
    write_state(tmp_path, {"identity": {"of": name}, "best": {name: torch.rand(3)}, "history": {name: [0.5]}})
    before = (tmp_path / "state.pt").read_bytes()
    write_state(tmp_path, read_state(tmp_path) or {})
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_or_harmless(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Cut off, bits flipped, stretches of zeros, as after a power cut or on a bad disk."""
    good, expected = (whole("ar-net-epoch") / "state.pt").read_bytes(), read_state(whole("ar-net-epoch"))
    rng, refusals = random.Random(0), []
    for attempt in range(150):
        data, place = bytearray(good), rng.randrange(len(good))
        if attempt % 3 == 0:
            del data[place:]
        elif attempt % 3 == 1:
            data[place] ^= 1 << rng.randrange(8)
        else:
            data[place : place + 512] = bytes(len(data[place : place + 512]))
        (tmp_path / "state.pt").write_bytes(data)
        try:
            read = read_state(tmp_path)
        except UserError as refusal:
            read, refusals = expected, [*refusals, str(refusal)]
        assert same(read, expected), "only what is not looked at may be damaged"
    assert len(refusals) > 100
    assert all("state.pt: a damaged checkpoint" in refusal for refusal in refusals)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_a_foreign_pickle_is_refused_and_not_executed(
    folder: Path, unfinished: Path, refused: Refused, kind: str, tmp_path: Path
) -> None:
    evil = {"identity": Malicious(tmp_path / "executed")}
    if kind == "pickle":
        (unfinished / "state.pt").write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, unfinished / "state.pt", _use_new_zipfile_serialization=kind == "torch")
    line = refused(unfinished, command(folder, "mil-epoch", unfinished, "--resume"))
    assert "state.pt: a damaged checkpoint" in line
    assert "delete it to train from the beginning" in line
    assert not (tmp_path / "executed").exists()
    torch.load(unfinished / "state.pt", weights_only=False) if kind != "pickle" else pickle.loads(pickle.dumps(evil))
    assert (tmp_path / "executed").exists(), "it would have been"


def test_a_file_of_something_else_is_refused(folder: Path, unfinished: Path, refused: Refused) -> None:
    torch.save({"weights": torch.rand(3)}, unfinished / "state.pt")
    line = refused(unfinished, command(folder, "mil-epoch", unfinished, "--resume"))
    assert "state.pt: not a checkpoint of xelvad" in line
