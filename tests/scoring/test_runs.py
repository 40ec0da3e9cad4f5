"""Run folders of strangers: whatever stands in one, it is loaded, or refused in one line that names file and key."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from xelvad.errors import UserError
from xelvad.models import DETECTORS, MIL
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.scoring.learned import Learned, Separation
from xelvad.pipeline.scoring.runs import (
    BankRow,
    RunManifest,
    identity_of,
    load_run,
    read_bank,
    read_manifest_of_run,
    save_run,
)
from xelvad.pipeline.scoring.thresholds import Calibration
from xelvad.pipeline.videos.clips import Clipping

DIM = 4
MANIFEST = RunManifest(
    version="1",
    detector="mil",
    xel="epoch",
    feature_dim=DIM,
    extractor="i3d-rgb",
    fingerprint="f",
    clipping=Clipping(),
    bags=BagConfig(scale="standard"),
    seed=0,
    dataset="d",
    dataset_digest="00",
    features_digest="11",
    training_videos=3,
    validation_videos=1,
    quirks="none",
    torch_version="2",
)
SEPARATION = Separation(0.8, 0.7, 0.9, 5, 6, 0.5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as training leaves it."""
    numbers = np.ones(DIM, np.float32)
    metrics = {
        "learned": Learned(SEPARATION, SEPARATION).plain,
        "calibration": {"last": asdict(Calibration(0.5, 0.01, "validation", 3, 400))},
    }
    bank = [BankRow("day/a.mp4", 3, 48, 64, 1.92, 0.5, 2)]
    config = {"validation": 0.1, "detector": "mil", "xel": {"mode": "epoch"}, "betas": [0.9, 0.999]}
    scaling = Scaling("standard", numbers, numbers)
    save_run(tmp_path / "run", MANIFEST, {"last": MIL(DIM).state_dict()}, scaling, config, metrics, bank)
    return tmp_path / "run"


def loaded_or_refused(run: Path, name: str) -> str:
    """Loads all that a run folder holds and uses it; the message where it is refused."""
    message = ""
    try:
        found = load_run(run)
        assert found.manifest.name
        assert found.threshold_in_words
        assert found.learned is None or found.learned.sentence
        features = found.scaling(np.ones((2, DIM), np.float32))
        assert torch.isfinite(found.detector.score(torch.from_numpy(features))).all()
        assert all(row.first_frame >= 0 for row in read_bank(run))
        assert isinstance(identity_of(run)["config"], dict)
    except UserError as error:
        message = str(error)
    # What a manifest says may contradict the other files only.
    elsewhere = "holds a detector", "without XEL", "not a run folder", "weights cannot be loaded", "features are scaled"
    named = str(run / name) in message or (str(run) in message and any(words in message for words in elsewhere))
    assert not message or named
    assert "\n" not in message
    assert len(message) < 600 + 2 * len(str(run))
    return message


WRONG = [
    *("null", "true", "-1", "0", "2.5", "1e400", "NaN", "-Infinity", str(10**12), str(10**18), "1" + "0" * 5000),
    *('"text"', '""', '"../../x"', '"a\\u0000\\nb"', '"\\ud800"', "[]", "[1, 2]", '["a"]', "{}", '{"a": [{}]}'),
    *('{"segments": 1000000000000}', '{"length": 1000000000000}', "[" * 5000 + "]" * 5000),
]


def keys_of(value: object, before: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [key for name, item in items for key in [(*before, name), *keys_of(item, (*before, name))]]


def changed(fields: object, key: tuple[str | int, ...], text: str | None) -> str:
    """JSON with one key of another value; without it where there is none."""
    copy = json.loads(json.dumps(fields))
    holder = copy
    for name in key[:-1]:
        holder = holder[name]
    if text is None:
        del holder[key[-1]]
        return json.dumps(copy)
    holder[key[-1]] = "MARK"
    return json.dumps(copy).replace('"MARK"', text)


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "bank.json"])
def test_any_value_of_any_key_is_loaded_or_refused_by_name(run: Path, name: str) -> None:
    # Guards against tracebacks, and against memory that is taken because a file says so.
    assert loaded_or_refused(run, name) == ""
    fields = json.loads((run / name).read_text())
    for key in keys_of(fields):
        refused = 0
        for text in [*WRONG, None]:
            (run / name).write_text(changed(fields, key, text))
            refused += bool(loaded_or_refused(run, name))
        assert refused >= 5, key
    for text in [*WRONG, "", "{", "\ufeff{}", "\xff"]:
        (run / name).write_bytes(text.encode("latin-1", "replace"))
        assert loaded_or_refused(run, name) or (name, text) in [("metrics.json", "{}"), ("bank.json", "[]"),
            *(("metrics.json", other) for other in WRONG if other.startswith("{"))]  # fmt: skip
    (run / name).unlink()
    assert loaded_or_refused(run, name) or name == "bank.json"


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        (
            "manifest.json",
            "feature_dim",
            10**9,
            "manifest.json: damaged (feature_dim: must lie in 1 to 1048576, not 1000",
        ),
        ("manifest.json", "feature_dim", "4", "feature_dim: must be a whole number, not '4'"),
        ("manifest.json", "extractor", "../../etc", "extractor: must be a plain name, not '../../etc'"),
        ("manifest.json", "extractor", "a/b", "extractor: must be a plain name"),
        ("manifest.json", "xel", "always", "xel: must be 'off' or 'epoch' or 'batch', not 'always'"),
        ("manifest.json", "bags", {"segments": 10**9}, "bags.segments: more than 65536"),
        ("manifest.json", "bags", {"scale": "double"}, "bags.scale: must be 'auto' or 'none'"),
        ("manifest.json", "bags", [], "bags: must be keys with values, not a list (0)"),
        ("manifest.json", "clipping", {"length": 10**12}, "clipping: more than the 67108864 frames"),
        ("manifest.json", "surprise", 1, "unknown key 'surprise'"),
        ("manifest.json", "format", 99, "a run of format 99 (xelvad 1)"),
        ("manifest.json", "seed", -1, "seed: must be 0 or more, not -1"),
        ("metrics.json", "learned", {"training": 1}, "metrics.json, learned: damaged (key 'verdict' is missing)"),
        ("metrics.json", "learned", Learned(Separation(2, 0, 3, 1, 1, 1), None).__dict__, "learned"),
        ("metrics.json", "calibration", {"last": {"threshold": "NaN"}}, "metrics.json, calibration: damaged (last"),
    ],
)
def test_what_is_wrong_is_said(run: Path, name: str, key: str, value: object, message: str) -> None:
    fields = json.loads((run / name).read_text())
    plain = json.loads(json.dumps(value, default=vars))
    (run / name).write_text(json.dumps(fields | {key: plain}))
    assert message in loaded_or_refused(run, name)


def test_rates_that_cannot_be_are_refused(run: Path) -> None:
    fields = json.loads((run / "metrics.json").read_text())
    for key, value in [("auc", 1.5), ("low", 0.9), ("high", 0.1), ("abnormal", 0), ("spread", -1)]:
        fields["learned"]["training"] = asdict(SEPARATION) | {key: value}
        (run / "metrics.json").write_text(json.dumps(fields))
        assert "learned: Separation(" in loaded_or_refused(run, "metrics.json")
    fields["learned"] = None
    fields["calibration"]["last"]["target"] = 1
    (run / "metrics.json").write_text(json.dumps(fields))
    assert "calibration: Calibration(" in loaded_or_refused(run, "metrics.json")


# Every line is ten of the line before: unfolded, no memory holds it.
BOMB = "a0: &a0 x\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(12))


@pytest.mark.parametrize(
    "text",
    ["", "7", "[1]", "a: [", "\t", "a: &a [*a]", "2020-99-99", "1: 2", "validation: many", "validation: .nan", "\0",
     "a: !!python/object:os.system {}", "[" * 5000, BOMB],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    assert "config.yaml" in loaded_or_refused(run, "config.yaml")


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "is missing"),
        (lambda state: state | {"odd": torch.ones(1)}, "odd is unknown"),
        (lambda state: {name: tensor.half() for name, tensor in state.items()}, "is torch.float16"),
        (lambda state: {name: tensor.reshape(-1, 1) for name, tensor in state.items()}, "not torch.float32"),
        (lambda state: {name: tensor * torch.nan for name, tensor in state.items()}, "has NaN or infinite numbers"),
    ],
)
def test_weights_of_another_detector_are_refused(run: Path, change: Change, message: str) -> None:
    path = run / "detector.safetensors"
    path.write_bytes(safetensors.torch.save(change(safetensors.torch.load(path.read_bytes()))))
    refusal = loaded_or_refused(run, path.name)
    assert f"{path}: the detector's weights cannot be loaded (" in refusal
    assert message in refusal


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"\x10" + b"\0" * 7 + b'{"a":', b"PK\3\4" * 9]
)
@pytest.mark.parametrize("name", ["detector.safetensors", "scaling.safetensors"])
def test_damaged_tensors_are_refused(run: Path, name: str, data: bytes) -> None:
    (run / name).write_bytes(data)
    assert str(run / name) in loaded_or_refused(run, name)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_dimension_takes_no_memory_before_the_weights_have_it(run: Path, detector: str) -> None:
    fields = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(fields | {"feature_dim": 2**20, "detector": detector}))
    before = Path("/proc/self/statm").read_text().split()[0] if Path("/proc/self/statm").exists() else "0"
    assert "the detector's weights cannot be loaded" in loaded_or_refused(run, "detector.safetensors")
    after = Path("/proc/self/statm").read_text().split()[0] if Path("/proc/self/statm").exists() else "0"
    assert int(after) - int(before) < 2**16  # pages, 256 MiB; the first layer alone of 2^20 x 512 numbers has 2 GiB


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.ones(DIM, np.float32)}, "'deviation'"),
        ({"mean": np.ones(DIM), "deviation": np.ones(DIM)}, "mean is not 4 numbers"),
        ({"mean": np.ones(3, np.float32), "deviation": np.ones(3, np.float32)}, "mean is not 4 numbers"),
        ({"mean": np.ones(DIM, np.float32), "deviation": np.zeros(DIM, np.float32)}, "a deviation that is not above 0"),
        ({"mean": np.full(DIM, np.nan, np.float32), "deviation": np.ones(DIM, np.float32)}, "mean is not 4 numbers"),
    ],
)
def test_a_wrong_scaling_is_refused(run: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    (run / "scaling.safetensors").write_bytes(safetensors.numpy.save(arrays))
    assert message in loaded_or_refused(run, "scaling.safetensors")


def test_a_run_of_format_1_is_read(run: Path) -> None:
    fields = json.loads((run / "manifest.json").read_text())
    for normalised, scale in [(True, "l2"), (False, "none")]:
        bags = {"segments": 32, "clips": 5, "l2_normalise": normalised}
        (run / "manifest.json").write_text(json.dumps(fields | {"format": 1, "bags": bags}))
        assert read_manifest_of_run(run).bags == BagConfig(32, 5, scale)
