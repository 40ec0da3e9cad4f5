"""What is said before there is a cluster, and what a cluster's processes take; no cluster is needed."""

import socket
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.cluster import extraction, session
from xelvad.pipeline.cluster.config import ClusterConfig
from xelvad.pipeline.cluster.pool import Resources
from xelvad.pipeline.features.config import ExtractionConfig

from ..helpers.footage import Footage

GPU_NODES = {"head": {"CPU": 4.0}, "a": {"CPU": 48.0, "GPU": 8.0}, "b": {"CPU": 64.0, "GPU": 4.0}}


def test_without_ray_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    video = Footage.video(tmp_path / "a.mp4", 16, codec="mpeg4")
    arguments = ["extract", str(video), "--features", str(tmp_path / "f"), "--weights", "random", "--engine", "ray"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "xelvad: --engine ray is not installed: pip install 'xelvad[cluster]'\n"
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "10.0.0.1:6379"], "--address is an option of --engine ray"),
        (["--actors", "2"], "--actors is an option of --engine ray"),
        (["--engine", "ray", "--actors", "0"], "actors must be at least 1, not 0"),
        (["--engine", "ray", "--device", "cuda:1"], "on a Ray cluster GPUs are handed out by Ray; say cuda"),
    ],
)
def test_contradictory_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    video = Footage.video(tmp_path / "a.mp4", 16, codec="mpeg4")
    assert main(["extract", str(video), "--features", str(tmp_path / "f"), "--weights", "random", *options]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_single_training_needs_no_cluster() -> None:
    with pytest.raises(UserError, match="say how many by --seeds"):
        ClusterConfig("ray").check_several("--seeds")
    ClusterConfig().check_several("--seeds")


def test_an_address_without_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def another(**options: object) -> None:
        raise RuntimeError("Version\nmismatch")

    monkeypatch.setattr(ray, "init", another)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        said = rf"^Ray cluster: cannot join the one at {address} \(Version mismatch\); `ray start --head` starts one"
        with pytest.raises(UserError, match=said), session.session(ClusterConfig("ray")):
            pass
    with pytest.raises(UserError, match="Connection refused"), session.session(ClusterConfig("ray", address)):
        pass


@pytest.mark.parametrize(
    ("nodes", "device", "given", "resources", "used", "workers"),
    [
        (GPU_NODES, "auto", None, Resources(6, 1), "cuda", 6),
        (GPU_NODES, "cuda", 3, Resources(3, 1), "cuda", 3),
        (GPU_NODES, "cpu", None, Resources(2), "cpu", None),
        ({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}, "auto", None, Resources(1), "cpu", None),
        ({"a": {"CPU": 1.0}}, "auto", 4, Resources(4), "cpu", None),
        ({}, "cuda", None, Resources(1, 1), "cuda", 1),
        ({}, "auto", None, Resources(2), "cpu", None),
    ],
)
def test_a_process_takes_a_gpu_with_its_share_of_cores_or_two_cores(
    monkeypatch: pytest.MonkeyPatch,
    nodes: dict[str, dict[str, float]],
    device: str,
    given: int | None,
    resources: Resources,
    used: str,
    workers: int | None,
) -> None:
    monkeypatch.setattr(extraction, "alive_nodes", lambda: nodes)
    config = ExtractionConfig(device=device)
    found, how = extraction._shares(config, ClusterConfig("ray", actor_cpus=given))
    assert (found, how.device, how.workers) == (resources, used, workers)


def test_as_many_processes_as_a_node_has_room_for() -> None:
    assert Resources(2).fit_into({"CPU": 5.0}) == 2
    assert Resources(6, 1).fit_into({"CPU": 48.0, "GPU": 4.0}) == 4
    assert Resources(6, 1).fit_into({"CPU": 48.0}) == 0
