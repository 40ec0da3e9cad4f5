"""A session with a Ray cluster: one that runs somewhere, or one of this machine alone for as long as it lasts.

Ray tells nobody that it is used, and its own messages stay off the console: what matters is said by those who work.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from ...errors import UserError
from ..support.progress import SILENT, Report
from .config import ClusterConfig

EXTRA = "pip install 'xelvad[cluster]'"
STORE_BYTES = 100 * 2**20  # of a cluster of our own: paths and small answers are all that is passed
ANSWER_SECONDS = 10.0
LOCAL = "local"  # Ray's word for a new cluster of this machine alone

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it will do anyhow, and warns of until it does
}


@contextmanager
def session(config: ClusterConfig, report: Report = SILENT) -> Iterator[None]:
    """Be connected to a cluster; one that this process is connected to already is taken, and stays.

    Args:
        config: which.
        report: is told which it is.

    Raises:
        UserError: Ray is not installed, there is no cluster at that address, or it is of another version.
    """
    check_installed()
    address = config.address or os.environ.get("RAY_ADDRESS") or LOCAL
    _set_environment(address)
    import ray

    if ray.is_initialized():
        yield
        return
    _connect(address)
    try:
        report.say(describe())
        yield
    finally:
        ray.shutdown()


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        UserError: says how to install it.
    """
    if find_spec("ray") is None:
        raise UserError(f"--engine ray is not installed: {EXTRA}")


def describe() -> str:
    """The cluster in a line."""
    return f"Ray cluster of {', '.join(_counted(alive_nodes()))}"


def alive_nodes() -> dict[str, dict[str, float]]:
    """What each node has, all in all, by the node's number; without those that are gone."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return {str(node["NodeID"]): dict(node["Resources"]) for node in nodes if node["Alive"]}


def _counted(nodes: dict[str, dict[str, float]]) -> Iterator[str]:
    yield f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    for kind in ("CPU", "GPU"):
        total = sum(resources.get(kind, 0) for resources in nodes.values())
        if total or kind == "CPU":
            yield f"{total:g} {kind}s"


def _connect(address: str) -> None:
    import ray

    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        _see_whether_it_answers(address)
        for last in (address != LOCAL, True):  # on a busy machine its parts may wait for each other for too long
            try:
                ray.init(**options)
                break
            except Exception:
                with suppress(Exception):
                    ray.shutdown()
                if last:
                    raise
    except Exception as error:  # it raises whatever comes up, from ValueError to errors of RPC
        where = "cannot start one here" if address == LOCAL else f"cannot join the one at {address}"
        raise UserError(
            f"Ray cluster: {where} ({_first_sentence(error)}); `ray start --head` starts one, --address names its head"
        ) from error
    _keep_off_the_console()


def _set_environment(address: str) -> None:
    """What Ray reads when it is imported."""
    wanted = dict(QUIET)
    if address == LOCAL and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Nobody else is to use it. Of itself Ray would keep a token in the user's home, where there need not be one.
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update({name: os.environ.get(name, value) for name, value in wanted.items()})


def _see_whether_it_answers(address: str) -> None:
    """Ray itself tries for two minutes, and says so in lines that nobody can keep off the console."""
    there = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if there:
        socket.create_connection((there[1], int(there[2])), timeout=ANSWER_SECONDS).close()


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " …"


def _keep_off_the_console() -> None:
    """Ray prints what its nodes complain about to stdout, where our results go, whatever ``log_to_driver`` says."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None
