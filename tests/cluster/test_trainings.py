"""Trainings on a real Ray cluster: the same bytes as here, and what at_once promises."""

from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray")

from xelvad.errors import UserError
from xelvad.pipeline.cluster.config import ClusterConfig
from xelvad.pipeline.experiments.trainings import at_once
from xelvad.pipeline.scoring.runs import seed_folder
from xelvad.pipeline.training.train import train, train_seeds
from xelvad.tests.cluster import work  # the actors look for it under this name, whatever the checkout is called

from ..training.test_train import dataset_of, files_of, make_data, quick
from .conftest import Nodes
from .test_pool import Listening

RAY = ClusterConfig("ray")


def test_results_come_in_the_order_of_the_tasks_and_the_first_refusal_in_its_words(
    nodes: Nodes, tmp_path: Path
) -> None:
    report = Listening()
    assert at_once(partial(work.train_or_die, tmp_path), range(3), 1, report, cluster=RAY) == [0, None, 4]
    assert [line.partition(",")[0] for line in report.said if "trainings" in line] == [
        f"{done} of 3 trainings" for done in range(1, 4)
    ]
    assert work.times(tmp_path, "0") == 3, "its process died, and it was done by another"
    with pytest.raises(UserError, match=r"^3 is not 4$"):
        at_once(partial(work.train_or_die, tmp_path), range(3, 5), 1, report, cluster=RAY)
    assert at_once(partial(work.train_or_die, tmp_path), [], 1, report, cluster=RAY) == []


@pytest.mark.usefixtures("one_thread")
def test_a_seed_trained_on_the_cluster_is_the_one_trained_here(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_data(tmp_path))  # paths are relative
    config = quick("mil", "epoch", seed=3)
    (manifest,) = train_seeds(dataset_of(Path()), Path("features"), Path("seeds"), config, 1, cluster=RAY)
    assert manifest.seed == 3
    train(dataset_of(Path()), Path("features"), Path("alone"), config)
    alone, there = files_of(Path("alone")), files_of(seed_folder(Path("seeds"), 3))
    assert [name for name in alone | there if alone.get(name) != there.get(name)] == []
