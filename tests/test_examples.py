"""The examples: reading Fashion-MNIST, the README's first command with the answer it has to give; pictures, a clip, a photo."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fusec.graph import reference
from fusec.graph.locate import find_graph
from fusec.graph.read_yaml import read_yaml
from tests.real_models import need_models

EXAMPLES = Path(__file__).parent.parent / "examples"
RIGHT = 61  # of the 64 pictures; the network's best two scores are at least 0.07 apart on each, so rounding cannot change it


@pytest.fixture(scope="module")
def fashion() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fashion", EXAMPLES / "fashion.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sample_is_the_start_of_the_test_set(fashion: ModuleType) -> None:
    if not fashion.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    for kept, whole in zip(fashion.sample(), fashion.full_set("t10k"), strict=True):
        assert np.array_equal(kept, whole[:64])


def test_network_input_is_nchw_between_zero_and_one(fashion: ModuleType) -> None:
    x = fashion.network_input(np.array([[[0, 51], [102, 255]]], np.uint8))
    assert x.dtype == np.float32
    assert np.array_equal(x, np.array([[[[0, 0.2], [0.4, 1]]]], np.float32))


def test_idx_files_are_read(fashion: ModuleType, tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "values.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + values.tobytes()))
    assert np.array_equal(fashion.read_idx(path), values)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "not an idx file"),
    (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an idx file of bytes"),
    (b"\0\0\x08\x02\0\0\0\x01", "ends inside its header"),
    (b"\0\0\x08\x01\0\0\0\x03ab", "promises"),
])
def test_broken_idx_files_are_refused(fashion: ModuleType, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "values.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        fashion.read_idx(path)


def test_a_missing_set_names_the_package(fashion: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        fashion.full_set("t10k", tmp_path)


def test_reference_knows_the_clothes(fashion: ModuleType) -> None:
    pictures, labels = fashion.sample()
    graph = read_yaml(find_graph("lenet5"))
    scores = reference.run(graph, fashion.network_input(pictures))[graph.outputs[0]].reshape(64, 10)
    best = np.sort(scores, axis=1)
    assert (scores.argmax(1) == labels).sum() == RIGHT
    assert (best[:, -1] - best[:, -2]).min() > 0.07


def test_first_command_of_the_readme() -> None:
    command = [sys.executable, "-X", "utf8", str(EXAMPLES / "classify_fashion.py"), "--target", "cpu"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert f"{RIGHT} of 64 pictures right" in done.stdout
    assert done.stdout.count("✓") == RIGHT
    assert done.stdout.count("✗") == 64 - RIGHT


def example(name: str, *words: object) -> str:
    """What an example prints; it has to end well."""
    command = [sys.executable, "-X", "utf8", str(EXAMPLES / name), *map(str, words), "--target", "cpu"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("network", "mode"), [("espcn_x2", "L"), ("anime4k_s", "RGB")])
def test_a_picture_is_doubled(network: str, mode: str, tmp_path: Path) -> None:
    """In luma or in all colours; it is nearer to the picture than what Pillow makes of it by repeating pixels."""
    folder = need_models()
    whole = Image.open(folder / "set5" / "bird.png").convert("RGB").crop((60, 40, 156, 120))
    small = whole.resize((48, 40), Image.Resampling.BOX)
    small.save(tmp_path / "small.png")
    said = example("upscale.py", folder / f"{network}.onnx", tmp_path / "small.png", "-o", tmp_path / "large.png")
    assert "48 x 40 to 96 x 80" in said
    made, repeated = Image.open(tmp_path / "large.png"), small.resize(whole.size, Image.Resampling.NEAREST)
    apart, plain = (np.abs(np.asarray(p.convert(mode), np.float32) - np.asarray(whole.convert(mode), np.float32)).mean()
                    for p in (made, repeated))
    assert apart < 0.8 * plain


def test_a_clip_is_doubled(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    picture = Image.open(need_models() / "set5" / "bird.png").convert("RGB").resize((48, 32))
    with av.open(str(tmp_path / "clip.mp4"), "w") as clip:
        track = clip.add_stream("h264", rate=24)
        track.width, track.height, track.pix_fmt = 48, 32, "yuv420p"
        for i in range(5):
            clip.mux(track.encode(av.VideoFrame.from_image(picture.rotate(i))))
        clip.mux(track.encode())
    said = example("upscale.py", need_models() / "espcn_x2.onnx", tmp_path / "clip.mp4", "-o", tmp_path / "large.mp4")
    assert "5 frames to 96 x 64" in said
    with av.open(str(tmp_path / "large.mp4")) as large:
        frames = [frame.to_image() for frame in large.decode(large.streams.video[0])]
    assert [frame.size for frame in frames] == [(96, 64)] * 5


@pytest.mark.slow
def test_a_photo_is_named() -> None:
    folder = need_models()
    said = example("classify.py", folder / "squeezenet_v11.onnx", folder / "imagenet20" / "imagenet_01_559.jpg", "--labels",
                   folder / "imagenet20" / "squeezenet_labels.txt")
    assert "folding chair" in said.splitlines()[1]
