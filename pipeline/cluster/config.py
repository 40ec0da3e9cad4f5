"""Options of where work is done: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import UserError


@dataclass(frozen=True)
class ClusterConfig:
    """Where the work is done.

    Attributes:
        engine: "local" works on this machine; "ray" on all nodes of a Ray cluster, of which each must see the same
            folders under the same paths.
        address: of the cluster's head, such as 10.0.0.1:6379; by default that of RAY_ADDRESS, and without one a cluster
            of this machine alone, for as long as the command runs.
        actors: processes on the cluster at most; by default as many as it has room for, also while it grows.
        actor_cpus: cores of each; by default 2 for extraction on CPUs, a GPU's share of the cores of its node (at most
            8) on GPUs, and 1 for a training.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    actors: int | None = None
    actor_cpus: int | None = None

    def __post_init__(self) -> None:
        for name in ("actors", "actor_cpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if self.engine != "ray":
            given = [name for name in ("address", "actors", "actor_cpus") if getattr(self, name) is not None]
            if given:
                raise UserError(f"--{given[0]} is an option of --engine ray")

    @property
    def is_ray(self) -> bool:
        """Whether there is a cluster."""
        return self.engine == "ray"

    def check_several(self, option: str) -> None:
        """Refuse a cluster for a single training, which would gain nothing by it.

        Args:
            option: that asks for several.

        Raises:
            UserError: names it.
        """
        if self.is_ray:
            raise UserError(f"--engine ray does several trainings at a time: say how many by {option}")


HERE = ClusterConfig()
