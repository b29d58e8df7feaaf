"""What users install: the sdist made of this checkout and the wheel made of that sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from safetensors.numpy import load

REPOSITORY = Path(__file__).parent.parent
DATA = ("templates", "graphs")


def shipped_data() -> dict[str, Path]:
    """Every file of templates/ and graphs/, by its path in the repository."""
    return {p.relative_to(REPOSITORY).as_posix(): p for folder in DATA for p in (REPOSITORY / folder).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, built by the backend that is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> dict[str, bytes]:
    """The wheel's files by name."""
    [path] = dist.glob("fusec-*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_carries_templates_and_graphs(wheel: dict[str, bytes]) -> None:
    expected = {f"fusec/_data/{name}": path.read_bytes() for name, path in shipped_data().items()}
    assert {name: content for name, content in wheel.items() if name.startswith("fusec/_data/")} == expected


def test_wheel_carries_the_trained_lenet5(wheel: dict[str, bytes]) -> None:
    weights = load(wheel["fusec/_data/graphs/lenet5.safetensors"])
    assert {name: value.shape for name, value in weights.items()} == {
        "conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,), "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
        "fc1.weight": (120, 400), "fc1.bias": (120,), "fc2.weight": (84, 120), "fc2.bias": (84,),
        "fc3.weight": (10, 84), "fc3.bias": (10,)}
    assert {value.dtype.name for value in weights.values()} == {"float32"}


def test_wheel_holds_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    assert {name.split("/")[0] for name in wheel} == {"fusec", "fusec-0.1.0.dist-info"}
    assert [name for name in wheel if "__pycache__" in name or "test" in name.lower()] == []
    modules = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "fusec").rglob("*.py")}
    assert modules == {name for name in wheel if name.endswith(".py")}
    assert "fusec/py.typed" in wheel


def test_metadata(wheel: dict[str, bytes]) -> None:
    metadata = message_from_bytes(wheel["fusec-0.1.0.dist-info/METADATA"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"cuda12", "cuda13", "cc", "onnx", "image", "video", "dev"} == set(metadata.get_all("Provides-Extra") or ())
    heavy = [r for r in metadata.get_all("Requires-Dist") or () if "extra ==" not in r
             and r.lower().startswith(("cupy", "torch", "onnx", "nvidia", "zig"))]
    assert heavy == []
    assert b"fusec = fusec.cli:main" in wheel["fusec-0.1.0.dist-info/entry_points.txt"]


def test_sdist_holds_the_whole_project(dist: Path) -> None:
    [path] = dist.glob("fusec-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    tests = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "tests").rglob("*.py")}
    assert {*shipped_data(), *tests, "LICENSE", "README.md", "pyproject.toml", "examples/data/fashion64.npz"} <= names
