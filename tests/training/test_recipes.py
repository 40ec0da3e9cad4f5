"""Recipes: every one loads, by name and by the command line alike, and what overrides what is as documented."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from xelvad.errors import UserError
from xelvad.models import DETECTORS, FRAMEWISE, MarginSchedule
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.pace import Pace
from xelvad.pipeline.training.recipes import detector_recipe, load_recipe, recipe_in, recipe_names, recipe_path
from xelvad.pipeline.training.train import plain

KNOWN = sorted([*DETECTORS, *FRAMEWISE])
DATA_SETS = ("ucf-crime", "shanghaitech")
WITH_XEL = [name for name in recipe_names() if name.endswith("+xel")]


@pytest.fixture
def parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingConfig]:
    """What `xelvad train` with some options would train by."""
    (tmp_path / "labels.csv").write_text("video,split,label\na.mp4,train,1\n")
    configs: list[TrainingConfig] = []

    def caught(dataset: object, features: object, out: object, config: TrainingConfig, **more: object) -> object:
        configs.append(config)
        return SimpleNamespace(name="", training_videos=0)

    monkeypatch.setattr("xelvad.pipeline.training.train.train", caught)
    monkeypatch.setattr("xelvad.pipeline.scoring.runs.read_learned", lambda folder: None)

    def parse(*options: str) -> TrainingConfig:
        places = ["--manifest", f"{tmp_path}/labels.csv", "--features", "features", "--out", "out"]
        assert main(["train", *places, *options]) == 0
        return configs[-1]

    return parse


def written(folder: Path, text: str) -> str:
    (folder / "config.yaml").write_text(text)
    return str(folder / "config.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_the_command_line_takes_every_recipe_as_it_is_written(parsed: Callable[..., TrainingConfig], name: str) -> None:
    config = parsed("--recipe", name)
    assert config == load_recipe(name)
    assert config.detector in (*DETECTORS, *FRAMEWISE)
    expected = {"bags": asdict(BagConfig()), "xel": asdict(XELConfig())}
    text = yaml.safe_load(recipe_path(name).read_text("utf-8"))
    expected = {key: expected[key] | value if key in expected else value for key, value in text.items()}
    assert {key: value for key, value in plain(asdict(config)).items() if key in text} == plain(expected)


@pytest.mark.parametrize("detector", KNOWN)
def test_a_detector_alone_means_its_general_recipe(parsed: Callable[..., TrainingConfig], detector: str) -> None:
    assert parsed("--detector", detector) == parsed(f"--detector={detector}") == load_recipe(f"general/{detector}")
    assert load_recipe(f"general/{detector}").detector == detector == detector_recipe(detector).split("/")[1]


def test_without_a_word_it_is_mil_by_the_defaults_of_its_recipe(parsed: Callable[..., TrainingConfig]) -> None:
    assert parsed() == load_recipe("general/mil")


def test_every_detector_has_a_recipe_for_any_videos_and_every_row_of_the_papers_tables_one_of_its_own() -> None:
    rows = ["svm", *(f"{detector}{xel}" for detector in ("mil", "srf", "ar-net") for xel in ("", "+xel"))]
    names = {f"{data}/{row}" for data in DATA_SETS for row in rows} | {
        f"general/{name}" for name in (*DETECTORS, *FRAMEWISE)
    }
    assert names <= set(recipe_names())


def test_the_recipes_of_a_data_set_are_of_known_detectors_with_xel_and_without() -> None:
    for name in set(recipe_names()) - {f"general/{detector}" for detector in (*DETECTORS, *FRAMEWISE)}:
        data, row = name.split("/")
        assert data in DATA_SETS
        assert load_recipe(name).detector == row.removesuffix("+xel")
        assert row == "svm" or f"{data}/{row.removesuffix('+xel')}+xel" in recipe_names()


@pytest.mark.parametrize("name", WITH_XEL)
def test_xel_is_all_that_a_recipe_with_it_adds(name: str) -> None:
    plain_text, xel_text = (recipe_path(which).read_text("utf-8") for which in (name.removesuffix("+xel"), name))
    without, with_xel = yaml.safe_load(plain_text), yaml.safe_load(xel_text)
    assert with_xel.pop("xel")["mode"] == "epoch"
    assert with_xel == without


def test_srf_with_xel_on_ucf_crime_is_the_published_script() -> None:
    config = load_recipe("ucf-crime/srf+xel")
    assert (config.iterations, config.batch, config.optimiser) == (50_000, 1, "adam")
    assert (config.betas, config.learning_rate, config.weight_decay) == ((0.5, 0.999), 5e-5, 5e-5)
    assert (config.xel.validation_weight, config.xel.margin_weight) == (1.0, 1.0)
    assert Pace(config, 810).schedule == MarginSchedule(7500, 7500, (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    assert config.quirk_names == set()


# --- what overrides what ----------------------------------------------------------------------------------------------


def test_a_file_overrides_a_recipe_and_flags_override_the_file(
    parsed: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    file = written(tmp_path, "iterations: 7\nbatch: 5\nxel:\n  mode: batch\n  warmup: 0.3\n")
    config = parsed("--recipe", "ucf-crime/srf+xel", "--config", file, "--batch", "6", "--xel.warmup", "0.4")
    assert (config.iterations, config.batch) == (7, 6)
    assert (config.xel.mode, config.xel.warmup, config.xel.margin_step) == ("batch", 0.4, 0.15)
    assert (config.betas, config.extractor) == ((0.5, 0.999), "c3d"), "what nobody mentions is the recipe's"


@pytest.mark.parametrize(
    ("text", "recipe"),
    [("detector: srf", "general/srf"), ("recipe: shanghaitech/ar-net", "shanghaitech/ar-net"),
     ("recipe: ucf-crime/mil+xel\ndetector: mil", "ucf-crime/mil+xel")],
)  # fmt: skip
def test_a_file_that_names_a_detector_or_recipe_gets_its_defaults(
    parsed: Callable[..., TrainingConfig], tmp_path: Path, text: str, recipe: str
) -> None:
    assert parsed("--config", written(tmp_path, text)) == parsed("--recipe", recipe)
    assert parsed(f"--config={tmp_path}/config.yaml") == parsed("--recipe", recipe)


def test_a_flag_overrides_the_detector_and_the_recipe_of_a_file(
    parsed: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    file = written(tmp_path, "detector: srf\niterations: 9\n")
    config = parsed("--config", file, "--detector", "ar-net")
    assert (config.detector, config.bags.clips, config.iterations) == ("ar-net", 300, 9)
    file = written(tmp_path, "recipe: ucf-crime/mil\n")
    assert parsed("--config", file, "--recipe", "ucf-crime/srf") == load_recipe("ucf-crime/srf")


@pytest.mark.parametrize("name", ["general/mil", "ucf-crime/srf+xel", "shanghaitech/ar-net+xel"])
def test_the_configuration_that_a_run_keeps_trains_it_again(
    parsed: Callable[..., TrainingConfig], tmp_path: Path, name: str
) -> None:
    kept = yaml.safe_dump(plain(asdict(load_recipe(name))), sort_keys=False)
    assert parsed("--config", written(tmp_path, kept)) == load_recipe(name)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["flag", "file"])
@pytest.mark.parametrize(
    ("key", "value", "known"),
    [("recipe", "ucf-crime/gan", "ucf-crime/srf+xel"), ("recipe", "../settings", "general/mil"),
     ("recipe", "mil", "general/mil"), ("detector", "gan", ", ".join(sorted((*DETECTORS, *FRAMEWISE))))],
)  # fmt: skip
def test_an_unknown_name_gets_one_line_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, key: str, value: str, known: str
) -> None:
    named = [f"--{key}", value] if where == "flag" else ["--config", written(tmp_path, f"{key}: {value}\n")]
    assert main(["train", "--manifest", "m.csv", "--features", "f", "--out", "o", *named]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no {key} '{value}'" in line
    assert known in line


@pytest.mark.parametrize("option", ["--rec", "--detec", "--iter"])
def test_options_are_not_abbreviated_since_a_recipe_would_be_overlooked(option: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--manifest", "m.csv", "--features", "f", "--out", "o", option, "1"])
    assert stop.value.code == 2


def test_a_recipe_that_is_not_there_is_refused_by_the_function() -> None:
    with pytest.raises(UserError, match="no recipe 'srf'; known: general/ar-net, "):
        load_recipe("srf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iterations: many", "iterations: must be a whole number, not 'many'"),
        ("iterations: -1", "iterations must be positive, not -1"),
        ("iteration: 5", "unknown key 'iteration'"),
        ("xel: {margins: [0.5, a]}", "xel.margins[1]: must be a number, not 'a'"),
        ("xel: []", "xel: must be keys with values, not a list (0)"),
        ("betas: [0.9]", "betas: must have 2 values, not 1"),
        ("[1, 2]", "must be keys with values, not a list (2)"),
        ("learning_rate: .nan", "learning_rate: must be a finite number, not nan"),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr("xelvad.pipeline.training.recipes.FOLDER", tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "one.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe("own/one")
    assert f"{tmp_path / 'own' / 'one.yaml'}: damaged ({message}); " in str(caught.value)


@pytest.mark.parametrize("text", ["recipe: 2020-99-99", "[" * 5000, "recipe: [", "\0", "\xff", "7"])
def test_a_configuration_that_cannot_be_read_names_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert recipe_in(["train", "--config", str(path)]) == "general/mil"
