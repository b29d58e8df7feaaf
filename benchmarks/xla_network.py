"""A layer graph by JAX, and XLA as a peer in a process of its own: python benchmarks/xla_network.py CASE DTYPE FILE.

The process compiles the case, leaves its output on the first images in FILE (NumPy), says on a line of standard output what it
made, and then answers each line it reads with the milliseconds of a call: the host's clock over many calls queued at once,
since XLA cannot be replayed from a CUDA graph. So it takes turns with engines of another process, which it shares no
library with. In half precision images are channels-last, which is what XLA's layout assignment gives convolutions on tensor
cores; else NCHW.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared with the process that asks

import jax
import jax.numpy as jnp
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from cases import Case, cases_of  # noqa: E402

from fusec.graph import layers as L  # noqa: E402
from fusec.graph.graph import LayerGraph, Node  # noqa: E402

CHECKED = 16  # images whose output is handed over
TURN_MS = 10.0  # of calls queued at once
MOST_CALLS = 500
Array = Any  # jax.Array, traced or not
NCHW, NHWC = "NCHW", "NHWC"


def layout_for(dtype: str) -> str:
    """The order of axes that XLA prefers on a GPU."""
    return NCHW if dtype == "float32" else NHWC


def network(graph: LayerGraph, dtype: str, layout: str) -> Callable[[Array], Array]:
    """The graph as a function of one array in `layout`; weights are constants of type `dtype`, so that XLA may arrange them."""
    params = {node.name: {key: np.asarray(value).astype(dtype) for key, value in node.params.items()} for node in graph.nodes}

    def call(x: Array) -> Array:
        values: dict[str, Array] = {}
        for node in graph.nodes:
            given = [values[i] for i in node.inputs]
            values[node.name] = x if isinstance(node.layer, L.Input) else apply(node, given, params[node.name], layout)
        return values[graph.outputs[0]]
    return call


def apply(node: Node, given: list[Array], params: dict[str, Any], layout: str) -> Array:
    """One node by JAX."""
    x, layer, channels = given[0], node.layer, layout.index("C")
    match layer:
        case L.Conv2d():
            y = jax.lax.conv_general_dilated(
                x, params["weight"].transpose(2, 3, 1, 0), layer.stride, _padding(layer), rhs_dilation=layer.dilation,
                dimension_numbers=(layout, "HWIO", layout), feature_group_count=layer.groups)
            return _plus(y, params, layout)
        case L.ConvTranspose2d():
            return _plus(_transposed(x, layer, params["weight"], layout), params, layout)
        case L.MaxPool2d() if not layer.ceil_mode:
            return jax.lax.reduce_window(x, np.array(-np.inf, x.dtype), jax.lax.max, _spread(layer.kernel, 1, layout),
                                         _spread(layer.stride, 1, layout), _spread(_padding(layer), (0, 0), layout))
        case L.Add():
            return sum(given[1:], x)
        case L.Concat():
            return jnp.concatenate(given, channels)
        case L.Flatten():
            return _flat(x, layout)
        case L.Linear():
            return _vector(_flat(x, layout).reshape(len(x), -1) @ params["weight"].T + params.get("bias", 0), layout)
        case L.Softmax():
            return jax.nn.softmax(x, channels)
        case L.Upsample() if not layer.linear:
            for axis, factor in zip("HW", layer.factor, strict=True):
                x = jnp.repeat(x, factor, layout.index(axis))
            return x
        case L.DepthToSpace():
            return _depth_to_space(x, layer, layout)
        case L.Identity():
            return x
    return _activation(x, layer, params, layout)


def _activation(x: Array, layer: L.Layer, params: dict[str, Any], layout: str) -> Array:
    match layer:
        case L.Relu():
            return jnp.maximum(x, 0)
        case L.LeakyRelu():
            return jnp.where(x > 0, x, layer.slope * x)
        case L.PRelu():
            return jnp.where(x > 0, x, _per_channel(params["weight"], layout) * x)
        case L.Clip():
            return jnp.clip(x, layer.low, layer.high)
        case L.Sigmoid():
            return jax.nn.sigmoid(x)
        case L.Tanh():
            return jnp.tanh(x)
    raise ValueError(f"no JAX operator for {layer.kind} here")


def _spread(pair: Any, other: Any, layout: str) -> tuple[Any, ...]:
    """A (height, width) pair on the axes of `layout`, and `other` on the rest."""
    return tuple({"H": pair[0], "W": pair[1]}.get(axis, other) for axis in layout)


def _padding(layer: L.Windowed) -> tuple[tuple[int, int], tuple[int, int]]:
    return layer.padding.along(L.Axis.Y), layer.padding.along(L.Axis.X)


def _per_channel(values: Any, layout: str) -> Any:
    return values.reshape([-1 if axis == "C" else 1 for axis in layout])


def _plus(y: Array, params: dict[str, Any], layout: str) -> Array:
    return y + _per_channel(params["bias"], layout) if "bias" in params else y


def _transposed(x: Array, layer: L.ConvTranspose2d, weight: Any, layout: str) -> Array:
    """A convolution of the input with zeros between its pixels by the kernel turned around, as XLA defines it."""
    if layer.groups != 1:
        raise ValueError("no transposed convolution in groups here")
    padding = []
    for axis, extra in zip(L.Axis, layer.output_padding, strict=True):
        window = layer.window(axis)
        padding.append((window.span - 1 - window.before, window.span - 1 - window.after + extra))
    return jax.lax.conv_general_dilated(
        x, weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), (1, 1), padding, lhs_dilation=layer.stride,
        rhs_dilation=layer.dilation, dimension_numbers=(layout, "HWIO", layout))


def _depth_to_space(x: Array, layer: L.DepthToSpace, layout: str) -> Array:
    images, b = (x if layout == NHWC else x.transpose(0, 2, 3, 1)), layer.block
    n, h, w, c = images.shape
    if layer.order is L.DepthToSpaceOrder.CRD:
        parts = images.reshape(n, h, w, c // b**2, b, b).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = images.reshape(n, h, w, b, b, c // b**2).transpose(0, 1, 3, 2, 4, 5)
    made = parts.reshape(n, h * b, w * b, c // b**2)
    return made if layout == NHWC else made.transpose(0, 3, 1, 2)


def _flat(x: Array, layout: str) -> Array:
    """Row-major in NCHW, whatever the layout is."""
    return _vector((x if layout == NCHW else x.transpose(0, 3, 1, 2)).reshape(len(x), -1), layout)


def _vector(x: Array, layout: str) -> Array:
    return x[:, :, None, None] if layout == NCHW else x[:, None, None, :]


def prepare(case: Case, dtype: str, layout: str) -> tuple[Callable[[Array], Array], Array]:
    """The compiled case and its input on the device."""
    images = case.images().astype(dtype)
    x = jax.device_put(images if layout == NCHW else images.transpose(0, 2, 3, 1))
    return jax.jit(network(case.graph(), dtype, layout)), x


def _queued(call: Callable[[Array], Array], x: Array, calls: int) -> float:
    """Milliseconds of one of so many calls."""
    began = time.perf_counter()
    for _ in range(calls):
        y = call(x)
    y.block_until_ready()
    return 1e3 * (time.perf_counter() - began) / calls


def main() -> None:
    name, dtype, file = sys.argv[1:]
    layout = layout_for(dtype)
    began = time.perf_counter()
    call, x = prepare(cases_of(dtype)[name], dtype, layout)
    y = np.asarray(call(x)[:CHECKED])
    seconds = time.perf_counter() - began
    np.save(file, y if layout == NCHW else y.transpose(0, 3, 1, 2))
    calls = min(MOST_CALLS, max(3, round(TURN_MS / min(_queued(call, x, 10) for _ in range(3)))))
    print(json.dumps({"jax": jax.__version__, "backend": jax.default_backend(), "layout": layout, "calls": calls,
                      "compile_seconds": round(seconds, 1)}), flush=True)
    for _ in sys.stdin:
        print(_queued(call, x, calls), flush=True)


if __name__ == "__main__":
    main()
