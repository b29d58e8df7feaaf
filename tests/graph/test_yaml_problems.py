"""Bad descriptions: the place, the words and the hint of every complaint, and no other error for whatever a file holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusec.errors import InputError, Problem
from fusec.graph.locate import graphs_folder
from fusec.graph.read_yaml import read_description
from fusec.graph.yaml_tree import MAX_BYTES
from tests.descriptions import CONV, MARK, marked, network, problems, write

# what is written, a part of the complaint, a part of the hint
ONE_PROBLEM = {
    "unknown key": (network("{name: a, type: conv2d, out_channels: 4, kernel: 3, §strid: 2}"), "unknown key 'strid'",
        "'stride'"),
    "unknown key, nothing near": (network("{name: a, type: relu, §zzz: 2}"), "unknown key 'zzz'",
        "relu takes name, type, inputs"),
    "missing key": (network("§{name: a, type: conv2d, kernel: 3}"), "conv2d needs 'out_channels'", "1 to 1,048,576"),
    "missing name": (network("§{type: relu}"), "relu needs 'name'", "printable"),
    "missing type": (network("§{name: a}"), "a layer needs 'type'", "write {name"),
    "misspelt type key": (network("{name: a, §typ: relu}"), "a layer needs 'type'", "'typ'"),
    "type in other letters": (network("{name: a, type: §ReLU}"), "unknown layer type 'ReLU'", "'relu'"),
    "unknown type": (network("{name: a, type: §conv2}"), "unknown layer type 'conv2'", "'conv2d'"),
    "unknown type, nothing near": (network("{name: a, type: §zzz}"), "unknown layer type 'zzz'", "known are conv2d"),
    "type that is no word": (network("{name: a, type: §[relu]}"), "unknown layer type ['relu']", "known are"),
    "internal type": (network("{name: a, type: §input}"), "unknown layer type 'input'", ""),
    "layer that is no mapping": (network("§conv2d"), "a layer is a mapping, not 'conv2d'", "write {name"),
    "zero size": (network("{name: a, type: linear, out_features: §0}"), "'out_features' should be greater", "1 to 1,048,576"),
    "negative size": (network("{name: a, type: conv2d, out_channels: §-4, kernel: 3}"), "not -4", "1 to 1,048,576"),
    "huge size": (network("{name: a, type: linear, out_features: §99999999}"), "less than or equal to 1048576", "1 to"),
    "number beyond all limits": (network("{name: a, type: conv2d, out_channels: 4, kernel: 3, groups: §" + "9" * 18 + "}"),
                                 "less than or equal", "1 to"),
    "zero kernel": (network("{name: a, type: max_pool2d, kernel: §0}"), "'kernel' should be greater", "[height, width]"),
    "huge kernel": (network("{name: a, type: max_pool2d, kernel: [2, §2000]}"), "not 2000", "1 to 1,024"),
    "zero stride": (network("{name: a, type: conv2d, out_channels: 1, kernel: 1, stride: §0}"), "'stride'", "1 to 1,024"),
    "pair of three": (network("{name: a, type: max_pool2d, kernel: §[1, 2, 3]}"), "a whole number or [height, width]",
        "kernel"),
    "text for a number": (network("{name: a, type: linear, out_features: §ten}"), "not 'ten'", "1 to"),
    "quoted number": (network("{name: a, type: linear, out_features: §'10'}"), "not '10'", "1 to"),
    "truth for a number": (network("{name: a, type: max_pool2d, kernel: §true}"), "not true", "1 to"),
    "nothing for a number": (network("{name: a, type: max_pool2d, kernel: §null}"), "not null", "1 to"),
    "fraction for a number": (network("{name: a, type: linear, out_features: §2.5}"), "not 2.5", "1 to"),
    "number for truth": (network("{name: a, type: linear, out_features: 1, bias: §1}"), "'bias'", "true or false"),
    "not a number": (network("{name: a, type: leaky_relu, slope: §.nan}"), "finite", "slope: a number"),
    "infinity": (network("{name: a, type: clip, low: 0, high: §.inf}"), "finite", "high: a number"),
    "overflowing number": (network("{name: a, type: clip, low: 0, high: §1e999}"), "finite", "high: a number"),
    "beyond float32": (network("{name: a, type: leaky_relu, slope: §1e300}"), "not 1e+300", "a number"),
    "limits swapped": (network("{name: a, type: clip, low: 2, high: §1}"), "below low", "high"),
    "negative padding": (network("{name: a, type: conv2d, out_channels: 1, kernel: 3, padding: §-1}"), "'padding'",
        "0 or more"),
    "negative edge": (network("{name: a, type: conv2d, out_channels: 1, kernel: 3, padding: {top: 1, left: §-1}}"),
                      "'left' should be", "0 or more"),
    "unknown edge": (network("{name: a, type: conv2d, out_channels: 1, kernel: 3, padding: {§topp: 1}}"),
                     "unknown key 'topp'", "'top'"),
    "same with a stride": (network("{name: a, type: conv2d, out_channels: 1, kernel: 3, stride: 2, padding: §same}"),
                           "stride is above 1", "stride 1 only"),
    "same for a pool": (network("{name: a, type: max_pool2d, kernel: 2, padding: §same}"), "'padding'", "0 or more"),
    "unknown padding word": (network("{name: a, type: conv2d, out_channels: 1, kernel: 3, padding: §valid}"), "'valid'",
        "or same"),
    "padding of four numbers": (network("{name: a, type: max_pool2d, kernel: 2, padding: §[1, 1, 1, 1]}"), "the four edges",
                                "{top, bottom, left, right}"),
    "pool padding too wide": (network("{name: a, type: max_pool2d, kernel: 2, padding: §2}"), "below the kernel", "padding"),
    "output padding too wide": (
        network("{name: a, type: conv_transpose2d, out_channels: 1, kernel: 3, stride: 2, output_padding: §2}"),
        "below the stride", "output_padding"),
    "unknown approximation": (network("{name: a, type: gelu, approximate: §tan}"), "none or tanh, not 'tan'", "none or tanh"),
    "slice of nothing": (network("{name: a, type: slice_channels, start: 2, stop: §2}"), "above start, not 2", "1 to"),
    "unknown mode": (network("{name: a, type: upsample, factor: 2, mode: §cubic}"), "linear, not 'cubic'", "nearest or"),
    "unknown order": (network("{name: a, type: depth_to_space, block: 1, order: §dcr}"), "DCR or CRD, not 'dcr'", "DCR or CRD"),
    "negative eps": (network("{name: a, type: batch_norm, eps: §-1}"), "'eps'", "0 or more"),
    "duplicate name": (network("{name: a, type: relu}", "§{name: a, type: tanh}"), "duplicate name 'a'", "line 4"),
    "name of the input again": (network("§{name: image, type: relu}"), "duplicate name 'image'", "line 2"),
    "name that is a number": (network("{name: §7, type: relu}"), "'name' should be text, not 7", "text"),
    "empty name": (network("{name: §'', type: relu}"), "at least 1 character", "text"),
    "long name": (network("{name: §" + "x" * 101 + ", type: relu}"), "at most 100 characters", "text"),
    "newline in a name": (network('{name: §"a\\nb", type: relu}'), "printable", "text"),
    "control character in a name": (network('{name: §"a\\x1b[31m", type: relu}'), "'a\\x1b[31m'", "text"),
    "half a character in a name": (network('{name: §"a\\ud800", type: relu}'), "'name'", "text"),
    "unknown input": (network("{name: conv1, type: relu}", "{name: b, type: relu, inputs: §conv2}"),
                      "unknown input 'conv2'", "'conv1'"),
    "unknown input in a list": (network("{name: conv1, type: relu}", "{name: b, type: add, inputs: [conv1, §konv1]}"),
                                "unknown input 'konv1'", "'conv1'"),
    "input that is no word": (network("{name: b, type: add, inputs: [image, §3]}"), "'inputs' should be text",
        "a list"),
    "cycle": (network("§{name: a, type: add, inputs: [image, b]}", "{name: b, type: relu, inputs: a}"), "cycle: a -> b -> a",
        ""),
    "a layer that reads itself": (network("§{name: a, type: add, inputs: [image, a]}"), "cycle: a -> a", ""),
    "too few inputs": (network("§{name: a, type: add}"), "add takes 2 to 64 inputs, not 1", ""),
    "too many inputs": (network("§{name: a, type: relu, inputs: [image, image]}"), "relu takes 1 input, not 2", ""),
    "shapes that differ": (network(CONV, "§{name: b, type: add, inputs: [a, image]}"), "add needs inputs of one shape", ""),
    "groups that do not divide": (network("§{name: a, type: conv2d, out_channels: 4, kernel: 3, groups: 2}"), "groups=2", ""),
    "groups that do not divide the output": (
        network("{name: a, type: conv2d, out_channels: 4, kernel: 3, groups: §3}"), "4 output channels, not 3", "1 to"),
    "groups of a transposed convolution": (
        network("{name: a, type: conv_transpose2d, out_channels: 4, kernel: 3, groups: §3}"), "the 4 output channels", "1 to"),
    "image too small": (network("§{name: a, type: max_pool2d, kernel: 9}"), "output height would be 0", "larger image"),
    "open size before linear": (network("§{name: a, type: linear, out_features: 2}", image="{name: image, channels: 1}"),
                                "linear needs a fixed image size", "global_avg_pool2d"),
    "too many weights": (
        network("{name: a, type: conv2d, out_channels: 9, kernel: 1}", "§{name: b, type: linear, out_features: 1000000}",
                image="{name: image, channels: 1, height: 100, width: 100}"),
        "over the limit of 2,147,483,648", "90,001,000,000"),
    "too many channels": (
        network("§{name: a, type: flatten}", image="{name: image, channels: 9999, height: 9999, width: 9999}"),
        "over the limit of 1,048,576", ""),
    "no input": ("§name: net\nlayers:\n  - {name: a, type: relu}", "a description needs 'input'", "input: {name"),
    "input and inputs": ("name: net\ninput: {name: i, channels: 1}\n§inputs: [{name: j, channels: 1}]\n"
                         "layers: [{name: a, type: add, inputs: [i, j]}]", "both given", "several"),
    "zero channels": (network("{name: a, type: relu}", image="{name: image, channels: §0}"), "'channels'", "1 to"),
    "unknown key of an input": (network("{name: a, type: relu}", image="{name: image, channels: 1, §hight: 3}"),
                                "unknown key 'hight'", "'height'"),
    "missing key of an input": (network("{name: a, type: relu}", image="§{name: image}"), "an input needs 'channels'", "1 to"),
    "unread input": ("name: net\ninputs:\n  - {name: i, channels: 1}\n  - §{name: j, channels: 1}\n"
                     "layers: [{name: a, type: relu, inputs: i}]", "nothing reads the input 'j'", "leave it out"),
    "first of several inputs left open": (
        "name: net\ninputs: [{name: i, channels: 1}, {name: j, channels: 1}]\nlayers: [§{name: a, type: relu}]",
        "which of the inputs", "inputs: NAME"),
    "unknown output": (network(CONV, rest="outputs: [a, §b1]"), "unknown output 'b1'", "the name of a layer"),
    "misspelt output": (network("{name: prob, type: relu}", rest="outputs: [prob, §prop]"), "unknown output 'prop'", "'prob'"),
    "input as output": (network(CONV, rest="outputs: [a, §image]"), "unknown output 'image'", "the name of a layer"),
    "output twice": (network(CONV, rest="outputs: [a, §a]"), "listed twice", ""),
    "unread layer": (network("{name: a, type: relu}", "§{name: b, type: relu}", rest="outputs: a"), "nothing reads 'b'",
        "outputs"),
    "unknown key at the top": (network(CONV, rest="§output: a"), "unknown key 'output'", "'outputs'"),
    "no layers": ("§name: net\ninput: {name: i, channels: 1}", "a description needs 'layers'", "10,000"),
    "empty layers": ("name: net\ninput: {name: i, channels: 1}\nlayers: §[]",
                     "at least 1 item", "10,000"),
    "layers that are no list": ("name: net\ninput: {name: i, channels: 1}\nlayers: §conv", "'layers' should be a list",
        "a list"),
    "duplicate key": (network("{name: a, type: conv2d, out_channels: 4, kernel: 3, §kernel: 5}"), "duplicate key 'kernel'",
        "line 4"),
    "duplicate key at the top": (network(CONV, rest="§name: again"), "duplicate key 'name'", "line 1"),
    "weights above the folder": (network(CONV, rest="weights: §../w.safetensors"), "inside the description's folder",
        "relative"),
    "weights from the root": (network(CONV, rest="weights: §/w.safetensors"), "inside the description's folder", "relative"),
    "weights of a drive": (network(CONV, rest="weights: §'C:\\w.safetensors'"), "inside the description's folder", "relative"),
    "weights of another kind": (network(CONV, rest="weights: §w.pkl"), ".safetensors", "relative"),
    "a list at the top": ("§- a", "a description is a mapping", "it starts with"),
    "a word at the top": ("§hello", "a description is a mapping, not 'hello'", "it starts with"),
    "nothing but a comment": ("# hello§", "the file holds nothing", ""),
    "anchor": (network("§&x {name: a, type: relu}"), "anchors", "write the value out"),
    "alias": ("a: §*x", "aliases", "write the value out"),
    "tag": ("name: §!!python/object:os.system net", "tags", "leave the tag out"),
    "deep nesting": ("name: " + "[" * 7 + "§" + "[" * 100_000, "nested deeper than 8 levels",
                     "Open here: 1:7, 1:8, 1:9"),
    "deep nesting by indentation": ("".join(f"{' ' * i}a:\n" for i in range(8)) + " " * 8 + "§a: 1",
                                    "nested deeper than 8 levels", "check the indentation"),
    "key that is no word": ("name: net\n? §[a, b]\n: 3", "a key must be a word", ""),
    "second document": ("name: net\n---\n§name: other",
                        "a second YAML document", "holds one"),
    "syntax": ("name: net\ninput: {name: image, channels: 1§\n  layers: 3", "not valid YAML", ""),
    "tab": ("name: net\n§\tinput: 3", "not valid YAML", "with spaces"),
    "indentation": ("name: net\n input§: 3", "not valid YAML", "check the indentation"),
    "input as a list": ("name: net\ninput: §[{name: i, channels: 1}]\nlayers: [{name: a, type: relu}]",
                        "'input' should be a mapping", "a mapping"),
    "control character": ("name: net\ninput: §\x07", "control character", "remove it"),
}
NOT_AT_THE_MARK = {"nothing but a comment", "syntax"}  # the parser's own idea of the place


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_one_problem_has_its_place_words_and_hint(case: str, tmp_path: Path) -> None:
    text, what, hint = ONE_PROBLEM[case]
    found, places = marked(tmp_path, text)
    assert len(found) == 1, found
    assert what in found[0].what
    assert hint in found[0].hint
    if case not in NOT_AT_THE_MARK:
        assert [found[0].where] == places
    assert all(c.isprintable() or c == "\n" for c in str(InputError(found)))


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = network(
        "{name: a, type: conv2d, out_channels: §0, kernel: §x, §strides: 1}",
        "{name: b, type: §rlu}",
        "{name: c, type: linear, out_features: 3, inputs: §imag}",
        "§{name: d, type: max_pool2d, kernel: 9, inputs: image}",
        "{name: e, type: tanh, inputs: image, §kernel: 1, §kernel: 2}",
        image="{name: image, channels: 3, height: 8, width: 8, §depth: 3}", rest="§extra: 1")
    found, places = marked(tmp_path, text)
    # a broken input hides the shapes behind it, so the pool's complaint waits for the input to be mended
    expected = [p for p in places if ":7:" not in p]
    assert [p.where for p in found] == expected


def test_shape_problems_come_with_the_others(tmp_path: Path) -> None:
    text = network("{name: a, type: relu, §slope: 1}", "§{name: b, type: max_pool2d, kernel: 9, inputs: image}",
                   "§{name: c, type: add, inputs: image}", "{name: d, type: flatten, inputs: c}",
                   "§{name: e, type: depth_to_space, block: 2, inputs: image}")
    found, places = marked(tmp_path, text)
    assert [p.where for p in found] == places


def test_what_needs_no_shapes_does_not_wait_for_them(tmp_path: Path) -> None:
    text = network("{name: a, type: conv2d, out_channels: §0, kernel: 3}",
                   "{name: b, type: conv2d, out_channels: 4, kernel: 3, groups: §3}", "§{name: c, type: add}",
                   "§{name: d, type: add, inputs: [c, e]}", "{name: e, type: relu}",
                   "§{name: f, type: mul, inputs: [e, f]}")
    found, places = marked(tmp_path, text)
    assert [p.where for p in found] == places
    assert "d -> e -> d" in found[3].what


def test_groups_that_do_not_fit_hide_nothing_behind_them(tmp_path: Path) -> None:
    text = network("§{name: a, type: conv2d, out_channels: 4, kernel: 3, groups: 2}",
                   "§{name: b, type: conv_transpose2d, out_channels: 9, kernel: 3, groups: 9}",
                   "§{name: c, type: max_pool2d, kernel: 99}")
    found, places = marked(tmp_path, text)
    assert [p.where for p in found] == places


def test_a_layer_of_unknown_type_is_checked_as_far_as_may_be(tmp_path: Path) -> None:
    found, places = marked(tmp_path, network("{name: §8, type: §rlu, inputs: §[]}", "{§typ: relu, name: §9}"))
    assert [p.where for p in found] == places


def test_many_unknown_words_do_not_take_long(tmp_path: Path) -> None:
    layers = [f"{{name: layer{i}, type: relu, inputs: lauer{i}}}" for i in range(3000)]
    found = problems(write(tmp_path, network(*layers, rest="")))
    assert len([p for p in found if "unknown input" in p.what]) == 3000


def test_too_many_layers(tmp_path: Path) -> None:
    layers = ",".join(f"{{name: l{i}, type: relu}}" for i in range(10_001))
    text = f"name: n\ninput: {{name: i, channels: 1}}\nlayers: [{layers}]"
    found = problems(write(tmp_path, text))
    assert [p.where for p in found] == [f"{tmp_path / 'net.yaml'}:3:9"]
    assert "at most 10000 items" in found[0].what


# files that hold no description


def test_a_directory(tmp_path: Path) -> None:
    assert "directory" in problems(tmp_path)[0].what


def test_a_missing_file_and_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "name: net")
    found = problems(tmp_path / "nett.yaml")
    assert "no such file" in found[0].what
    assert "'net.yaml'" in found[0].hint


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "no such file" in problems(tmp_path / "nowhere" / "net.yaml")[0].what


def test_an_impossible_name() -> None:
    assert problems(Path("a\0b.yaml"))[0].what
    assert problems(Path("x" * 5000 + ".yaml"))[0].what


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "net.yaml"
    os.mkfifo(pipe)
    assert "regular file" in problems(pipe)[0].what


@pytest.mark.parametrize("content", [b"", b"  \n\n", b"\xef\xbb\xbf"])
def test_an_empty_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(content)
    assert "empty" in problems(path)[0].what


@pytest.mark.parametrize(("content", "place"), [
    (b"name: net\nin\xff\n", "2:3"),
    ("name: net".encode("utf-16"), "1:1"),
    ("name: é\xa0".encode() + b"\xc3", "1:9"),
])
def test_a_file_of_another_encoding(content: bytes, place: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(content)
    found = problems(path)
    assert found[0].where == f"{path}:{place}"
    assert "UTF-8" in found[0].what


def test_an_onnx_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08\x12\xff")
    with pytest.raises(InputError, match=r"net\.onnx: ONNX files cannot be read yet \(describe the network in YAML"):
        read_description(path)


def test_a_hundred_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    assert f"{MAX_BYTES:,}" in problems(path)[0].what


def test_a_bomb_of_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    found = problems(write(tmp_path, "\n".join(lines)))
    assert [p.where for p in found] == [f"{tmp_path / 'net.yaml'}:1:5"]


# anything at all

SEEDS = [p.read_text(encoding="utf-8") for p in sorted(graphs_folder().glob("*.yaml")) if p.stat().st_size < 1700]
SEEDS += [text.replace(MARK, "") for text, _, _ in ONE_PROBLEM.values() if len(text) < 2000]
PIECES = st.sampled_from([
    "{", "}", "[", "]", ":", ",", "-", "\n", "  ", "&a", "*a", "!", "|", ">", "'", '"', "\\", "%", "?", "#", "null", "-1", "0",
    "1e9", ".nan", "true", "name", "type", "inputs", "image", "conv2d", "kernel", "same", "\x00", "\t", "---", "...", "\ufeff",
    '"\\UFFFFFFFF"', "<<: ", "conv1", "relu1", "99999999999999999999999",
])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_a_mutated_description_reads_or_is_an_input_error(seed: str, data: st.DataObject, tmp_path: Path) -> None:
    text = seed
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(PIECES | st.text(max_size=3)) + text[end:]
    path = tmp_path / "net.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outputs: tuple[str, ...] = ()
    complaint: tuple[Problem, ...] = ()
    try:
        outputs = read_description(path).graph.outputs
    except InputError as error:
        complaint = error.problems
    assert outputs or complaint
    assert all(p.what and p.where.startswith(str(path)) for p in complaint)
