"""The long test of extraction on a cluster: two runs on one folder, processes and nodes killed all the time.

A Ray cluster of several nodes on this machine extracts small videos, some of them broken, into a folder that a run
without Ray fills as well. At random moments a process of the cluster is killed, a node is taken away and another one
added, or the run without Ray is killed and begun anew. In the end every feature file must be that of a single process,
bit for bit, every broken video set aside, nothing else left; and every video must have been computed once, or, where
it was in hand when somebody was killed, once more.

    python benchmarks/soak.py --videos 2000 --seed 0

The network is the tests', whose features are the numbers that the frames show; it takes `--seconds` for each batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xelvad.pipeline.cluster.session import QUIET
from xelvad.tests.helpers.footage import Footage

STORE = 80 * 2**20  # bytes; Ray takes no less
RUN = """
import json, logging, os, sys
from xelvad.benchmarks.soak import count
from xelvad.pipeline.cli import main

count()
if "ray" in sys.argv:
    import ray
    from xelvad.pipeline.cluster import session
    variables = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "TINY_SECONDS", "SOAK_LOG")}
    environment = {"env_vars": variables, "worker_process_setup_hook": "xelvad.benchmarks.soak.count"}
    ray.init(os.environ["SOAK_ADDRESS"], log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=environment)
    session._keep_off_the_console()
sys.exit(main(sys.argv[1:]))
"""


def count() -> None:
    """In each process: know the tests' network, and write down who begins which video, and who finishes it."""
    from xelvad.extractors import EXTRACTORS
    from xelvad.pipeline.features.store import FeatureStore
    from xelvad.tests.features.test_extraction import TINY

    EXTRACTORS[TINY.name] = TINY
    write, log = FeatureStore.write, os.environ["SOAK_LOG"]

    @contextmanager
    def counted(self: FeatureStore, name: str, *how: Any) -> Iterator[Any]:
        _note(log, "began", name)
        with write(self, name, *how) as writer:
            yield writer
        _note(log, "done", name)

    FeatureStore.write = counted  # type: ignore[method-assign, assignment]


def _note(log: str, what: str, name: str) -> None:
    number = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(number, f"{what} {os.getpid()} {name}\n".encode())
    os.close(number)


def draw(folder: Path, videos: int, broken: float, chance: random.Random) -> set[str]:
    """Videos of one to six clips in ten folders; returns the names of those that are broken."""
    bad = set(chance.sample(range(videos), round(videos * broken)))
    for number in range(videos):
        path = folder / f"{number % 10}/{number}.mp4"
        if number in bad:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no video" * chance.randrange(1, 100))
        else:
            Footage.video(path, chance.randrange(10, 90), codec="mpeg4", first=number)
    return {f"{number % 10}/{number}.mp4" for number in bad}


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, but the list that carries the time."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "quarantine.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


class Soak:
    """A cluster, two runs, and what is done to them."""

    def __init__(self, folder: Path, nodes: int, seconds: float, chance: random.Random) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.seconds, self.chance = folder, seconds, chance
        self.log = folder / "log"
        self.log.touch()
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self._node() for _ in range(nodes)]
        self.killed: Counter[str] = Counter()

    def _node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def start(self, features: str, *options: str) -> subprocess.Popen[bytes]:
        """A run, into a folder of that name."""
        arguments = ["extract", str(self.folder / "videos"), "--features", str(self.folder / features)]
        arguments += ["--extractor", "tiny", "--weights", "random", "--device", "cpu", "--runtime", "eager"]
        own = {"TINY_SECONDS": str(self.seconds), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        own |= {"SOAK_LOG": str(self.log), "SOAK_ADDRESS": self.cluster.address}
        with (self.folder / f"{features}{'-ray' if options else ''}.txt").open("ab") as said:
            command = [sys.executable, "-c", RUN, *arguments, *options]
            return subprocess.Popen(command, env=os.environ | own, stdout=said, stderr=said)

    def kill_until_the_end(self, every: float) -> tuple[int, int]:
        """Both runs, and somebody killed every so many seconds; returns their exit codes."""
        on_cluster, plain = self.start("features", "--engine", "ray"), self.start("features")
        try:
            while on_cluster.poll() is None or plain.poll() is None:
                time.sleep(self.chance.uniform(0.5, 1.5) * every)
                victim = self.chance.choice(["actor", "actor", "node", "plain"])
                if victim == "plain" and plain.poll() is None:
                    plain.kill()
                    plain.wait()
                    plain = self.start("features")
                elif victim == "node":
                    self.cluster.remove_node(self.nodes.pop(self.chance.randrange(len(self.nodes))), False)
                    self.nodes.append(self._node())
                elif victim != "actor" or not self._kill_an_actor({on_cluster.pid, plain.pid}):
                    continue
                self.killed[victim] += 1
            return on_cluster.returncode, plain.returncode
        finally:
            for process in (on_cluster, plain):
                if process.poll() is None:
                    process.kill()

    def _kill_an_actor(self, but: set[int]) -> bool:
        """Kill one that has begun a video and not finished it; False where there is none."""
        for line in reversed(self.log.read_text().splitlines()[-20:]):
            what, pid, _ = line.split(" ", 2)
            title = Path(f"/proc/{pid}/cmdline")
            if what == "began" and int(pid) not in but and title.exists() and title.read_bytes().startswith(b"ray::"):
                os.kill(int(pid), signal.SIGKILL)
                return True
        return False


def main() -> int:
    """Run it, and print what came of it; 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--broken", type=float, default=0.05, help="share of the videos")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills, on average")
    parser.add_argument("--seconds", type=float, default=0.05, help="that the network takes for a batch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.update(QUIET)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = draw(folder / "videos", options.videos, options.broken, chance)
        soak = Soak(folder, options.nodes, options.seconds, chance)
        try:
            return _report(soak, folder, bad, options)
        finally:
            soak.cluster.shutdown()


def _report(soak: Soak, folder: Path, bad: set[str], options: argparse.Namespace) -> int:
    soak.start("alone").wait()
    soak.log.write_text("")
    began = time.monotonic()
    codes = soak.kill_until_the_end(options.every)
    took = time.monotonic() - began
    # Whom two kills in a row have hit while it was alone counts as one that kills; a last run tries these once more.
    last = soak.start("features", "--retry").wait()
    lines = [line.split(" ", 2) for line in soak.log.read_text().splitlines()]
    begun, done = (Counter(name for what, _, name in lines if what == kind) for kind in ("began", "done"))
    alone, found = files_in(folder / "alone"), files_in(folder / "features")
    kills = sum(soak.killed.values())
    wrong = {
        "exit codes": {*codes, last} - {int(bool(bad))},
        "files that are not those of one process": {
            name for name in alone | found if alone.get(name) != found.get(name)
        },
        "videos that were computed other than once": {name for name, number in done.items() if number != 1},
        "videos that were not computed": options.videos - len(bad) - len(done),
        "more computations than kills explain": max(0, sum(begun.values()) - len(done) - 2 * options.nodes * kills),
    }
    result = {"killed": soak.killed, "seconds": round(took), "begun": sum(begun.values()), "done": sum(done.values())}
    print(json.dumps(result | {what: sorted(them) if isinstance(them, set) else them for what, them in wrong.items()}))
    if any(wrong.values()):
        for path in sorted(folder.glob("*.txt")):
            print(f"--- {path.name}", path.read_text()[-2000:], sep="\n")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
