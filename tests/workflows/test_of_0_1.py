"""Features and runs that earlier versions wrote are read and give the same scores: `reference/make_of_0_1.py`."""

from pathlib import Path

import numpy as np
import pytest

from xelvad.pipeline.datasets import read_manifest
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.scoring.runs import load_run, read_bank

OLD = Path(__file__).parents[1] / "reference" / "of_0_1"


@pytest.mark.parametrize("label", ["MIL", "SRF+XEL", "AR-Net+XEL"])
def test_a_run_of_0_1_scores_its_features_as_it_did(label: str) -> None:
    dataset = read_manifest(OLD / "annotations.csv", test_fold="test")
    found = evaluate(load_run(OLD / label), dataset, OLD / "features")
    assert found.calibration is not None, "its training videos are found to be the same"
    assert len(found.scores) == 4
    with np.load(OLD / "scores.npz") as expected:
        for result in found.scores:
            np.testing.assert_allclose(result.scores, expected[f"{label}|{result.name}"], rtol=0, atol=1e-6)


def test_the_bank_of_a_run_of_0_1_is_read() -> None:
    rows = read_bank(OLD / "SRF+XEL")
    assert len({row.video for row in rows}) == len(rows) > 0
