"""Shards: every video in one of them, whoever works it out, and none much larger than the others."""

import itertools
import random

import pytest

from xelvad.errors import UserError
from xelvad.pipeline.support.shards import Shard, split

COUNTS = (1, 2, 3, 7, 16)


def sizes_of(seed: int) -> dict[str, int]:
    """Some videos: many or few, alike or not, of no bytes, or one that is larger than all others together."""
    rng = random.Random(seed)
    kinds = [
        lambda: rng.randrange(10**9),
        lambda: int(rng.lognormvariate(15, 2)),
        lambda: rng.choice([0, 5, 10**12]),
        lambda: 7,
    ]
    size = kinds[seed % len(kinds)]
    return {f"{rng.choice('abc')}/{number}.mp4": size() for number in range(rng.choice([0, 1, 2, 5, 40, 400]))}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", range(24))
def test_shards_share_out_all_videos_and_end_together(seed: int, count: int) -> None:
    sizes = sizes_of(seed)
    parts = [Shard(number, count).of(sizes) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*parts)) == sorted(sizes), "every video in exactly one"
    mean = sum(sizes.values()) / count
    for part in parts:
        if part:
            last = min(sizes[name] for name in part)
            assert sum(sizes[name] for name in part) <= mean + (1 - 1 / count) * last + 1e-6
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 or len(set(sizes.values())) > 1, "equal ones by number"
    if len(sizes) >= count:
        assert all(parts)
    else:
        assert sorted(map(len, parts), reverse=True)[: len(sizes)] == [1] * len(sizes)


@pytest.mark.parametrize("seed", range(24))
def test_the_order_in_which_videos_were_found_changes_nothing(seed: int) -> None:
    sizes = sizes_of(seed)
    names = list(sizes)
    random.Random(seed).shuffle(names)
    shuffled = {name: sizes[name] for name in names}
    for count in COUNTS:
        assert split(shuffled, count) == split(sizes, count) == split(dict(reversed(sizes.items())), count)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_the_longest_is_near_the_best_that_there_is(seed: int, count: int) -> None:
    rng = random.Random(seed)
    sizes = {str(number): rng.choice([1, 2, 3, rng.randrange(1, 100)]) for number in range(7)}
    best = min(
        max(sum(size for size, at in zip(sizes.values(), places, strict=True) if at == part) for part in range(count))
        for places in itertools.product(range(count), repeat=len(sizes))
    )
    longest = max(sum(sizes[name] for name in part) for part in split(sizes, count))
    assert best <= longest <= (4 / 3 - 1 / (3 * count)) * best


def test_the_split_is_that_of_every_version() -> None:
    # Guards against another split in a later version: the shards of one array would overlap, and leave gaps.
    sizes = {"a": 9, "b": 7, "c": 7, "d": 5, "e": 4, "f": 0, "g": 0}
    assert split(sizes, 3) == [{"a", "f", "g"}, {"b", "d"}, {"c", "e"}]


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1.0/4", " 1/4", "١/٤", "1/9999999"]
)
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard is a part of the work, 1/16 to 16/16, not "):
        Shard.parse(text)


def test_a_shard_is_read_as_it_is_written() -> None:
    assert Shard.parse("3/16") == Shard(3, 16)
    assert Shard.parse("1/1") == Shard(1, 1)
