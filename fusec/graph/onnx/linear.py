"""Converters of ONNX operators on whole tensors: matrix products, norms, and reductions over channels or space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.onnx.call import Call, Converter, normal_axis
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import C, Image, Tensor

Floats = NDArray[np.float32]

VECTORS = "matrices multiply vectors (N, C): flatten the image before it"


def gemm(call: Call) -> Tensor:
    if call.attribute("transA", 0):
        raise Refusal("it transposes the image's matrix", "transA=0 works")
    weight = call.floats(1)
    weight = weight if call.attribute("transB", 0) else weight.T
    scaled = weight.astype(np.float64) * call.attribute("alpha", 1.0)
    bias = None
    if call.has(2):
        given = call.floats(2)
        if weight.ndim != 2 or given.ndim > 2 or given.shape[-1:] not in ((), (1,), weight.shape[:1]) \
                or given.shape[:-1] not in ((), (1,)):
            raise Refusal(f"its bias of shape {list(given.shape)} is not one for each output")
        bias = np.broadcast_to(given.reshape(-1), weight.shape[:1]) * np.float64(call.attribute("beta", 1.0))
    return _linear(call, scaled.astype(np.float32), None if bias is None else bias.astype(np.float32))


def matmul(call: Call) -> Tensor:
    return _linear(call, call.floats(1).T, None)


def _linear(call: Call, weight: Floats, bias: Floats | None) -> Tensor:
    image = call.image()
    if image.rank != 2:
        raise Refusal(f"it multiplies a tensor of {image.rank} axes", VECTORS)
    if weight.ndim != 2 or weight.shape[1] != image.channels:
        raise Refusal(f"its matrix of {'x'.join(map(str, weight.T.shape))} does not fit {image.channels} inputs",
                      "the file is damaged")
    params = {"weight": weight} | ({} if bias is None else {"bias": bias})
    return call.emit(L.Linear(weight.shape[0], bias is not None), [image], params)


def batch_norm(call: Call) -> Tensor:
    if call.attribute("training_mode", 0) or any(call.node.outputs[1:]):
        raise Refusal("it computes the statistics of the batch, as in training", "export the network for inference")
    if not call.attribute("spatial", 1):
        raise Refusal("it has statistics for every pixel (spatial=0)", "one for each channel works")
    image = call.image()
    names = ("weight", "bias", "running_mean", "running_var")
    params = {name: call.floats(i + 1) for i, name in enumerate(names)}
    if any(value.shape != (image.channels,) for value in params.values()):
        raise Refusal(f"its statistics are not of {image.channels} channels", "the file is damaged")
    layer = L.BatchNorm(call.attribute("epsilon", 1e-5))
    if not (params["running_var"].astype(np.float64) + layer.eps > 0).all():
        raise Refusal("a variance and epsilon are not above 0 together", "were its inputs mixed up?")
    return call.emit(layer, [image], params)


def lrn(call: Call) -> Tensor:
    size = call.attribute("size")
    if size % 2 == 0:
        raise Refusal(f"an even size ({size}) sees one channel more behind than in front", "odd sizes work")
    layer = L.LocalResponseNorm(size, call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0))
    return call.emit(layer, [call.image()])


def over_channels(call: Call) -> Image:
    """The image of a softmax along its channels: before opset 13 the axis begins all that is summed over."""
    image = call.image()
    axis = call.axis(image.rank, -1 if call.opset >= 13 else 1)
    if axis != C or (call.opset < 13 and not image.one_pixel):
        raise Refusal(f"it sums along axis {call.attribute('axis', -1 if call.opset >= 13 else 1)} of "
                      f"{image.rank} axes{' and those behind it' if call.opset < 13 else ''}", "it may run over the channels")
    return image


def softmax(call: Call) -> Tensor:
    return call.emit(L.Softmax(), [over_channels(call)])


def log_softmax(call: Call) -> Tensor:
    return call.emit(L.LogSoftmax(), [over_channels(call)])


def reduce_mean(call: Call) -> Tensor:
    return over_space(call, L.GlobalAvgPool2d(), 18)


def reduce_max(call: Call) -> Tensor:
    return over_space(call, L.GlobalMaxPool2d(), 18)


def over_space(call: Call, layer: L.Layer, axes_from: int) -> Tensor:
    """A reduction over all pixels, keeping the axes or not."""
    image = call.picture()
    axes = call.attribute("axes") if call.opset < axes_from else call.whole(1) if call.has(1) else None
    which = set() if axes is None else {normal_axis(a, image.rank) for a in axes}
    if which != set(range(2, image.rank)):
        raise Refusal(f"it reduces along {sorted(which) if which else 'all axes'}", "all axes of space together work")
    made = call.emit(layer, [image])
    return made if call.attribute("keepdims", 1) else Tensor(made.source, made.axes[:2])


LINEAR: dict[str, Converter] = {
    "Gemm": gemm, "MatMul": matmul, "BatchNormalization": batch_norm, "LRN": lrn, "Softmax": softmax,
    "LogSoftmax": log_softmax, "ReduceMean": reduce_mean, "ReduceMax": reduce_max,
}
