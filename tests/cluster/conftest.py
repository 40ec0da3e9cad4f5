"""A real Ray cluster on this machine: a head without a core, and nodes of one core each that may be taken away."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STORE = 80 * 2**20  # bytes; Ray takes no less


def patiently(start: Callable[[], Any]) -> Any:
    """Start a part of Ray, which gives up after half a minute where the machine has much else to do."""
    for last in (False, False, True):
        try:
            return start()
        except Exception:
            if last:
                raise
    return None


@dataclass
class Nodes:
    """The cluster, and what tests do to it."""

    cluster: Any
    nodes: list[Any]
    died: Path = Path()

    def add(self) -> Any:
        """One more."""
        node = patiently(lambda: self.cluster.add_node(num_cpus=1, object_store_memory=STORE))
        self.nodes.append(node)
        return node

    def restore(self) -> None:
        """As many as there were."""
        while len(self.nodes) < 2:
            self.add()

    def kill(self, number: str) -> None:
        """Take the node of that number away, as a spot instance goes: nothing on it can clear up."""
        node = next(node for node in self.nodes if node.node_id == number)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="package")
def started() -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    from xelvad.pipeline.cluster import session

    os.environ.update(session.QUIET)
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 5}
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    nodes = Nodes(cluster, [])
    nodes.restore()
    try:
        yield nodes
    finally:
        cluster.shutdown()


@pytest.fixture
def nodes(started: Nodes) -> Iterator[Nodes]:
    """A session with two nodes."""
    with _session(started):
        yield started


@pytest.fixture
def tiny_nodes(started: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The same; the processes know the test network, and write down of which frames they died."""
    started.died = tmp_path_factory.mktemp("died") / "of"
    started.died.touch()
    with _session(started, TINY_DIED=str(started.died)):
        yield started


def environment_of(**more: str) -> dict[str, Any]:
    """The environment of the cluster's processes."""
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1", "TINY_SECONDS": "0.05"}
    hook = {"worker_process_setup_hook": "xelvad.tests.cluster.work.know_tiny"} if more else {}
    return {"env_vars": variables | more} | hook


@contextmanager
def _session(started: Nodes, **more: str) -> Iterator[None]:
    import logging

    import ray

    from xelvad.pipeline.cluster import session

    started.restore()
    ray.init(
        address=started.cluster.address,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        runtime_env=environment_of(**more),
    )
    session._keep_off_the_console()
    until = time.monotonic() + 120
    while sum(node.get("CPU", 0) for node in session.alive_nodes().values()) != 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    try:
        yield
    finally:
        ray.shutdown()
