"""The profiles hold only what Snakemake and its Slurm plugin understand, and rules that exist. Slurm is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))

snakemake = pytest.importorskip("snakemake.cli")
pytest.importorskip("snakemake_executor_plugin_slurm")


def content(profile: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / profile / "config.yaml").read_text())
    return loaded


@pytest.mark.parametrize("profile", PROFILES)
def test_every_key_is_an_option_of_snakemake(profile: str) -> None:
    actions = snakemake.get_argument_parser()._actions
    known = {option.removeprefix("--") for action in actions for option in action.option_strings}
    assert set(content(profile)) <= known


def test_rules_of_the_slurm_profile_exist() -> None:
    rules = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.MULTILINE))
    profile = content("slurm")
    assert {*profile["set-resources"], *profile["set-threads"]} <= rules


def test_snakemake_reads_the_slurm_profile_beside_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    monkeypatch.chdir(ROOT)
    _, found = snakemake.parse_args(["--profile", "profiles/slurm"])
    settings = ExecutorPluginRegistry().get_plugin(found.executor).get_settings(found)
    assert settings.jobname_prefix == "flexseg", "docs/cluster.md finds the jobs by it"
    assert settings.requeue
    assert found.retries > 0, "a run that is longer than a job must go on in the next one"
    assert found.keep_going, "the default profile is read as well"
    for resource in ("mem_mb", "runtime"):
        assert found.default_resources[resource].value > 0, "Slurm's own defaults may be a few minutes"
    for rule in ("train", "evaluate"):
        asked = {name: resource.value for name, resource in found.set_resources[rule].items()}
        assert asked["gpu"] == 1
        assert asked["runtime"] >= 12 * 60, "minutes: 24h must not be read as anything else"
