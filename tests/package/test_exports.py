"""The public face: every name is there, and every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest
import torch

import xelvad

NEEDS_A_RUN = {"load_run", "score_video"}  # their examples run in workflows/test_demo.py
DATA = {"Run", "FrameScores", "ScoredVideo"}  # are made by others
EXAMPLES = sorted(set(xelvad.__all__) - {"__version__"} - NEEDS_A_RUN - DATA)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", xelvad.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(xelvad, name) is not None
    assert name in dir(xelvad)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'xelvad' has no attribute 'I3D'"):
        xelvad.I3D  # noqa: B018


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_example_runs(name: str) -> None:
    public = getattr(xelvad, name)
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs=vars(sys.modules[public.__module__]))
    assert sum(len(test.examples) for test in found) > 0, "a public name has an example"
    torch.manual_seed(0)
    for test in found:
        result = doctest.DocTestRunner().run(test)
        assert result.failed == 0


def test_importing_the_package_does_not_wait_for_torch() -> None:
    assert "torch" not in vars(importlib.import_module("xelvad"))
