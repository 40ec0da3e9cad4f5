"""What CONTRIBUTING says about adding things is true: one registration, in one place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xelvad.errors import UserError
from xelvad.models import DETECTORS, FRAMEWISE, Bags, DetectorLoss, LearningDetector, highest
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets.choice import PUBLISHED, DatasetChoice, PublishedDataset
from xelvad.pipeline.datasets.dataset import Dataset, LabelledVideo

from ..helpers.detectors import Neighbours
from ..helpers.features import write_dataset


class LogisticMIL(LearningDetector):
    """A line of CONTRIBUTING's: the highest clip of each video, by logistic regression."""

    name, title = "logistic", "Logistic MIL"

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.scorer = nn.Sequential(nn.Linear(feature_dim, 1), nn.Sigmoid())

    def score(self, features: Tensor) -> Tensor:
        return self.scorer(features).squeeze(-1)

    def loss(self, bags: Bags) -> DetectorLoss:
        abnormal, normal = bags.split(self.score(bags.clips))
        scores = torch.cat([highest(abnormal), highest(normal)])
        labels = torch.cat([torch.ones(len(abnormal)), torch.zeros(len(normal))])
        return DetectorLoss.of({"entropy": nn.functional.binary_cross_entropy(scores, labels)}, abnormal, normal)


@pytest.mark.parametrize("kind", [LogisticMIL, Neighbours])  # the second looks at the clips beside a clip
def test_a_new_detector_is_trained_evaluated_and_taken_apart_with_xel(
    kind: type[LearningDetector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DETECTORS, kind.name, kind)
    manifest, features = write_dataset(tmp_path)
    data = ["--manifest", str(manifest), "--features", str(features)]
    train = [
        "train",
        *data,
        "--detector",
        kind.name,
        "--xel",
        "epoch",
        "--iterations",
        "40",
        "--until-learned",
        "false",
    ]
    assert main([*train, "--until-learned", "false", "--out", str(tmp_path / "run")]) == 0
    assert f"{kind.title}+XEL trained on" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "bank.json").read_text()), "its bank was filled"
    assert main(["evaluate", *data, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "results")]) == 0
    ablate = ["ablate", *data, "--detectors", kind.name, "--seeds", "1", "--iterations", "3"]
    assert main([*ablate, "--out", str(tmp_path / "ablation")]) == 0
    assert kind.title in capsys.readouterr().out


def test_a_detector_that_is_not_there_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, features = write_dataset(tmp_path)
    arguments = ["--manifest", str(manifest), "--features", str(features), "--out", str(tmp_path / "run")]
    assert main(["train", *arguments, "--detector", "logistic"]) == 2
    known = ", ".join(sorted([*DETECTORS, *FRAMEWISE]))
    assert f"there is no detector 'logistic'; known: {known}" in capsys.readouterr().err


def test_a_new_data_set_is_an_option_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(annotations: Path, videos: Path | None) -> Dataset:
        lines = (annotations / "list.txt").read_text().split()
        found = tuple(LabelledVideo(name, "train", abnormal=name.startswith("bad")) for name in lines)
        return Dataset("Doorbells", annotations, found, "digest")

    monkeypatch.setitem(PUBLISHED, "doorbells", PublishedDataset("annotations", "the folder with its list", read))
    (tmp_path / "list.txt").write_text("bad_1\ngood_1\ngood_2\n")
    choice = DatasetChoice("doorbells", annotations=tmp_path)
    assert [video.abnormal for video in choice.read().of("train")] == [True, False, False]
    with pytest.raises(UserError, match="--dataset doorbells needs --annotations: the folder with its list"):
        DatasetChoice("doorbells")
