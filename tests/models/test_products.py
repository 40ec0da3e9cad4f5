"""Products by oneDNN: exact, only where they were asked for, and without filling the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from xelvad.models import products
from xelvad.models.products import CAPACITIES, fast_products, keep_few_products, plain_products
from xelvad.pipeline import cli


@pytest.fixture(autouse=True)
def _no_capacities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CAPACITIES:
        monkeypatch.setenv(name, "1000")  # so that what a test sets is undone
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_the_precision_is_lowered_only_with_few_products_and_where_that_is_exact(
    monkeypatch: pytest.MonkeyPatch, kept: bool, exact: bool
) -> None:
    monkeypatch.setattr(products, "_medium_is_exact", lambda: exact)
    if kept:
        keep_few_products()
    with fast_products():
        assert torch.get_float32_matmul_precision() == ("medium" if kept and exact else "highest")
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_precision_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_medium_is_exact", lambda: True)
    keep_few_products()
    torch.set_float32_matmul_precision("high")
    try:
        with fast_products():
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("context", [fast_products, plain_products])
def test_an_error_leaves_the_precision_as_it_was(
    monkeypatch: pytest.MonkeyPatch, context: Callable[[], AbstractContextManager[None]]
) -> None:
    monkeypatch.setattr(products, "_medium_is_exact", lambda: True)
    keep_few_products()
    with pytest.raises(ZeroDivisionError), context():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"


def test_plain_products_within_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_medium_is_exact", lambda: True)
    keep_few_products()
    with fast_products():
        with plain_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_capacity_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPACITIES[0], "7")
    keep_few_products()
    assert os.environ[CAPACITIES[0]] == "7"
    assert CAPACITIES[1] in os.environ


def test_bfloat16_is_not_taken_for_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a processor with AMX: under "medium" the factors are rounded.
    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        medium = torch.get_float32_matmul_precision() == "medium"
        return tensor.to(torch.bfloat16 if medium else torch.float32).to(torch.float32)

    monkeypatch.setattr(torch.Tensor, "float", rounded)
    products._medium_is_exact.cache_clear()
    assert not products._medium_is_exact()
    products._medium_is_exact.cache_clear()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("rows", [1, 31, 450, 900])
def test_products_are_exact(rows: int) -> None:
    torch.manual_seed(0)
    keep_few_products()
    clips = torch.randn(rows, 4096, dtype=torch.float64)
    weight = torch.randn(512, 4096, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.linear(clips, weight)
    (gradient,) = torch.autograd.grad(expected.square().sum(), weight)
    single = weight.detach().float().requires_grad_()
    with fast_products():
        found = torch.nn.functional.linear(clips.float(), single)
        (found_gradient,) = torch.autograd.grad(found.square().sum(), single)
    for value, known in ((found, expected), (found_gradient, gradient)):
        assert torch.allclose(value.double(), known, rtol=0, atol=5e-5 * float(known.detach().std()))


GROWTH = """
import sys
import torch
from pathlib import Path
from xelvad.models.products import fast_products, keep_few_products
from xelvad.pipeline.support.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

keep_few_products()
keep_freed_memory()
torch.set_num_threads(1)
clips, weight = torch.randn(800, 512), torch.randn(512, 512, requires_grad=True)
with fast_products():
    for rows in (800, *range(300, 380)):
        torch.nn.functional.linear(clips[:rows], weight).sum().backward()
        if rows == 339:
            before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_new_shapes_need_no_new_memory() -> None:
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 30


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_the_commands_that_train_keep_few_products(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    missing = str(tmp_path / "missing")
    arguments = [command, "--manifest", missing, "--features", missing, "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 2  # in somebody else's process nothing is set
    assert not [name for name in CAPACITIES if name in os.environ]
    monkeypatch.setattr(sys, "argv", ["xelvad", *arguments])
    assert cli.main() == 2
    assert all(name in os.environ for name in CAPACITIES)
