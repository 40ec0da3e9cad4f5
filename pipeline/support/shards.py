"""Shards: work that is split beforehand among processes that never talk to each other, as the jobs of a Slurm array.

Each works out the whole split by itself and takes its own part. So all must come to the same one: it depends on names
and sizes alone, not on the order in which things were found, on the machine, or on what is done already.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import UserError


def split(sizes: Mapping[str, int], count: int) -> list[set[str]]:
    """Split things into parts that take about equally long, the largest first, each to the part that has least.

    No part is larger than the mean by more than ``(1 - 1/count)`` times the smallest thing in it, and none is larger
    than 4/3 of what the best split of all has (Graham, Bounds on multiprocessing timing anomalies, 1969).

    Args:
        sizes: of each thing, by name.
        count: of parts, at least one.

    Returns:
        The names in each part; every name stands in one. Parts are empty where there are fewer things than parts.
    """
    parts: list[set[str]] = [set() for _ in range(count)]
    # Things of no size are shared out as well: equal parts go by how many they hold.
    loads = [(0, 0, number) for number in range(count)]
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        load, held, number = loads[0]
        parts[number].add(name)
        heapq.heapreplace(loads, (load + size, held + 1, number))
    return parts


@dataclass(frozen=True)
class Shard:
    """A part of the work: the third of 16.

    Attributes:
        number: which, from 1.
        count: of how many.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``3/16`` names.

        Raises:
            UserError: it names none.
        """
        parts = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
            raise UserError(f"--shard is a part of the work, 1/16 to 16/16, not {text!r}")
        return cls(int(parts[1]), int(parts[2]))

    def of(self, sizes: Mapping[str, int]) -> set[str]:
        """The names of the things in this shard, of all things with their sizes: see `split`."""
        return split(sizes, self.count)[self.number - 1]
