"""One lock file for pip, make and conda; nothing that a user could be handed is ever unpickled."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml

from flexseg import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def normal(name: str) -> str:
    """A distribution's name as the packaging rules compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pins = [line.split(";")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s*]+", pin), f"{pin!r} is no exact pin"
    return {normal(name): version for name, version in (pin.split("==") for pin in pins)}


def required() -> list[str]:
    project = PROJECT["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    return [normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines]  # type: ignore[index]


def test_every_dependency_is_pinned_exactly() -> None:
    optional: dict[str, str] = {}
    for extra in ("foundation", "onnx", "tensorboard"):
        pins = locked(f"requirements-{extra}.lock")
        pinned = [line.split("==") for line in PROJECT["project"]["optional-dependencies"][extra]]
        assert all(pins[normal(name)] == version for name, version in pinned)
        optional |= pins
    assert sorted(set(required()) - locked().keys() - optional.keys()) == []
    assert not optional.keys() & locked().keys(), "an extra must not change what the suite is locked to"


def test_what_is_installed_is_what_is_locked() -> None:
    wrong = {}
    for name, version in locked().items():
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != version.split("+")[0]:
            wrong[name] = f"{found} instead of {version}"
    assert wrong == {}


def test_the_lock_is_complete() -> None:
    """Every requirement of every locked package is locked too: `make env` installs with --no-deps."""
    from packaging.requirements import Requirement

    pins = locked()
    missing = set()
    for name in pins:
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                if normal(requirement.name) not in pins:
                    missing.add(f"{requirement.name} (of {name})")
                elif not requirement.specifier.contains(pins[normal(requirement.name)], prereleases=True):
                    missing.add(f"{requirement} (of {name}; {pins[normal(requirement.name)]} is locked)")
    # torch's own CUDA packages come with its CUDA builds alone.
    assert sorted(line for line in missing if not line.startswith(("nvidia", "cuda", "triton"))) == []


def test_environment_yml_takes_the_lock_and_the_same_python() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip == ["-r requirements.lock", "-e ."], "conda must install the lock's pins and no others"
    (python,) = [line.split("=")[-1] for line in plain if line.startswith("python")]
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert python == oldest == PROJECT["tool"]["mypy"]["python_version"]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert sorted(plain) == sorted(["pip", f"python={python}"]), "packages belong in the lock"


def test_make_env_installs_the_lock_and_ci_runs_every_check() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "--requirement requirements.lock" in makefile
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert [line for line in lines if "make" in line] == ["make lint", "make docs", "make test"], "tests come last"


def test_the_site_is_built_from_a_lock_of_its_own() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "--no-deps --requirement requirements-docs.lock" in makefile
    assert "mkdocs build --strict\n" in makefile, "with --quiet no warning would be counted"
    site, suite = locked("requirements-docs.lock"), locked()
    assert {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"} <= site.keys()
    assert {name: site[name] for name in site.keys() & suite.keys()} == {
        name: suite[name] for name in site.keys() & suite.keys()
    }, "one environment must be able to hold both"


def test_the_version_is_the_same_everywhere() -> None:
    """A calendar version, which the citation names, and of which the changelog tells or is about to."""
    assert re.fullmatch(r"20\d\d\.(1[0-2]|[1-9])\.\d+", __version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", __version__)


def test_the_citation_is_valid() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["doi"] in (ROOT / "README.md").read_text()
    for entry in (citation, paper):
        names = [tuple(sorted(author.items())) for author in entry["authors"]]
        assert names, entry["title"]
        assert len(set(names)) == len(names), "the format wants every author once"
        assert all({"name"} == author.keys() or "family-names" in author for author in entry["authors"])


def test_the_container_copies_what_there_is() -> None:
    """No engine builds it here: what it copies exists, and what it leaves out is nothing that git tracks."""
    recipe = (ROOT / "Containerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.+)$", recipe, re.MULTILINE) for word in line.split()[:-1]]
    assert "requirements.lock" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", recipe, re.MULTILINE)
    assert PROJECT["project"]["requires-python"] == f">={python}"
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = {line.strip("/*") for line in lines if line and not line.startswith(("#", "!"))}
    tops = ["benchmarks", "docs", "flexseg", "methods", "profiles", "tests", "Snakefile", "pyproject.toml", "README.md"]
    assert all((ROOT / name).exists() for name in tops)
    assert ignored.isdisjoint([*tops, *sources, ".git"])


def test_hooks_before_a_commit_use_the_locked_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [each["repo"] for each in config["repos"]] == ["local"], (
        "other versions than the lock's would disagree with it"
    )
    for hook in config["repos"][0]["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert program == "git" or program in locked(), f"{program} is not in requirements.lock"


def test_the_workflow_catalogue_has_its_entry() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert set(usage["software-stack-deployment"].values()) <= {True, False}


def test_nothing_is_ever_unpickled() -> None:
    modules = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    calls = {"torch.load", "np.load", "numpy.load", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "eval", "exec"}
    sources = [*ROOT.glob("flexseg/**/*.py"), *ROOT.glob("methods/*.py")]
    assert len(sources) > 20
    read_weights = 0
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            found: set[str] = set()
            if isinstance(node, ast.Import):
                found = {name.name.split(".")[0] for name in node.names} & modules
            elif isinstance(node, ast.ImportFrom):
                found = {(node.module or "").split(".")[0]} & modules
            elif isinstance(node, ast.Call):
                found = {ast.unparse(node.func)} & calls
                if found == {"torch.load"} and path == ROOT / "flexseg" / "models" / "weights.py":
                    # Public checkpoints come so; this mode builds tensors and plain containers, and runs nothing.
                    assert [ast.unparse(word) for word in node.keywords if word.arg == "weights_only"] == [
                        "weights_only=True"
                    ]
                    found, read_weights = set(), read_weights + 1
            assert not found, f"{path.name}, line {getattr(node, 'lineno', 0)}: {found}"
    assert read_weights == 1


def test_results_and_reports_say_what_appears_there() -> None:
    for folder in ("results", "reports"):
        assert (ROOT / folder / "README.md").is_file()


def test_the_library_names_no_method() -> None:
    """A method is an edge: nothing in the engine, the data or the workflow may know one by name."""
    names = [path.stem for path in (ROOT / "methods").glob("*.py") if path.stem != "flexseg"]
    for path in [*(ROOT / "flexseg" / "engine").glob("*.py"), *(ROOT / "flexseg" / "data").glob("*.py")]:
        assert not [name for name in names if re.search(rf"\b{name}\b", path.read_text())], path
    for path in [*(ROOT / "flexseg" / "engine").glob("*.py"), ROOT / "Snakefile"]:
        assert "methods.flexseg" not in path.read_text()
