"""What is installed, and from where: the locked versions, the wheel, the scripts."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parent.parent
SCRIPTS = [
    *sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("scripts/*") if path.is_file()),
    ".ci/run",
]


def locked_packages() -> dict[tuple[str, str], dict[str, Any]]:
    """The packages of uv.lock, without davsql itself, by name and version."""
    with (PROJECT / "uv.lock").open("rb") as file:
        packages = tomllib.load(file)["package"]
    return {(each["name"], each["version"]): each for each in packages if each["name"] != "davsql"}


def requirements(name: str) -> dict[tuple[str, str], set[str]]:
    """The packages of scripts/locked/NAME.txt with their hashes."""
    text = (PROJECT / "scripts" / "locked" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        pinned = re.match(r"([\w-]+)==([\w.]+)", line)
        assert pinned is not None, line
        found[pinned.group(1), pinned.group(2)] = set(re.findall(r"--hash=(\S+)", line))
    return found


@pytest.mark.parametrize("name", ["build", "run", "dev"])
def test_locked__is_what_uv_locked(name: str) -> None:
    packages = locked_packages()
    for key, hashes in requirements(name).items():
        files = [*packages[key].get("wheels", []), *([packages[key]["sdist"]] if "sdist" in packages[key] else [])]
        assert hashes == {file["hash"] for file in files}, key


def test_locked__dev_is_all_and_the_others_parts_of_it() -> None:
    assert requirements("dev").keys() == locked_packages().keys()
    assert requirements("run").keys() < requirements("dev").keys()
    assert requirements("build").keys() < requirements("dev").keys()


def test_locked__fits_pyproject() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[<>=]", each)[0] for each in wanted}
    assert names <= {name for name, _ in requirements("run")}


def test_locked__comes_from_the_public_index() -> None:
    text = (PROJECT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^/\"]+", text)) == {"https://pypi.org", "https://files.pythonhosted.org"}
    assert "file://" not in text


@pytest.mark.parametrize(
    "platform", ["manylinux.*x86_64", "manylinux.*aarch64", "macosx.*(arm64|universal2)", "win_amd64"]
)
def test_locked__has_a_wheel_of_every_dependency(platform: str) -> None:
    packages = locked_packages()
    wanted = re.compile(rf"(none-any|-(cp311-cp311|cp3\d+-abi3)-.*{platform}.*)\.whl$")
    lacking = [
        name
        for name, version in requirements("run").keys() | requirements("build").keys()
        if not any(wanted.search(wheel["url"]) for wheel in packages[name, version].get("wheels", []))
    ]
    # WsgiDAV 4.4.0 is published as source only; it is plain Python, so it needs setuptools and no compiler.
    assert lacking == ["wsgidav"]


def test_wheel__holds_the_package_whole(tmp_path: Path) -> None:
    build = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    built = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / built.stdout.strip()) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("davsql/")}
        entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "davsql=davsql.cli.main:main" in wheel.read(entry_points).decode().replace(" ", "")
    source = PROJECT / "davsql"
    files = {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(PROJECT).as_posix() for path in files}
    assert "davsql/store/schema.sql" in names


@pytest.mark.parametrize("script", SCRIPTS)
def test_script__is_sound_bash(script: str) -> None:
    subprocess.run(["bash", "-n", PROJECT / script], check=True)
    if not script.endswith(".sh"):
        assert (PROJECT / script).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
        assert (PROJECT / script).stat().st_mode & 0o111
