"""The containers' cluster: a compose file by its specification, of the image that is built here."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker/compose.yaml"


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file against the schema of the Compose Specification, as check-jsonschema brings it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_it_is_valid_and_a_wrong_word_would_be_seen(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    checked = check(COMPOSE)
    assert checked.returncode == 0, checked.stdout
    (tmp_path / "compose.yaml").write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:"))
    checked = check(tmp_path / "compose.yaml")
    assert checked.returncode == 1
    assert "healthchek" in checked.stdout


def test_all_nodes_see_the_same_folder_and_nobody_else_reaches_them(services: dict[str, dict[str, Any]]) -> None:
    assert services.keys() == {"head", "worker"}
    assert services["head"]["volumes"] == services["worker"]["volumes"] == ["${DATA:-.}:/data", "cache:/cache"]
    assert not any("ports" in service or "network_mode" in service for service in services.values())
    assert all(service["environment"]["RAY_USAGE_STATS_ENABLED"] == "0" for service in services.values())
    assert "--address=head:6379" in services["worker"]["entrypoint"]


def test_the_image_has_what_the_nodes_run(services: dict[str, dict[str, Any]]) -> None:
    build = services["worker"]["build"]
    dockerfile = (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve()
    assert dockerfile == ROOT / "docker/cpu.Dockerfile"
    assert "['cluster']" in dockerfile.read_text()
