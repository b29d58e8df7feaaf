"""Converters of ONNX operators that move values: joined, cut, reshaped, and channels that become pixels."""

from __future__ import annotations

from collections.abc import Sequence

from fusec.graph import layers as L
from fusec.graph.onnx import views
from fusec.graph.onnx.arithmetic import images_of
from fusec.graph.onnx.call import Call, Converter, normal_axis
from fusec.graph.onnx.extent import Extent, Open
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Axes, C, Digit, Image, Known, Tensor

VIEWS = "what only rearranges whole axes of an image is a view"


def concat(call: Call) -> Tensor:
    images = images_of(call)
    if call.axis(images[0].rank, 1) != C:
        raise Refusal(f"it joins along axis {call.attribute('axis', 1)}", "images are joined along their channels, axis 1")
    return call.emit(L.Concat(), images)


def depth_to_space(call: Call) -> Tensor:
    mode = call.attribute("mode", "DCR")
    if mode not in L.DepthToSpaceOrder.__members__:
        raise Refusal(f"mode cannot be {mode!r:.40}", "DCR or CRD")
    return call.emit(L.DepthToSpace(call.attribute("blocksize"), L.DepthToSpaceOrder(mode)), [_four_axes(call)])


def space_to_depth(call: Call) -> Tensor:
    image = _four_axes(call)
    block = call.attribute("blocksize")
    if any(isinstance(side, int) and block and side % block for side in image.sides):
        raise Refusal(f"its image of {image.height} x {image.width} is no multiple of {block}", "the file is damaged")
    crd = call.attribute("mode", "DCR") == "CRD"
    made = call.make(L.SpaceToDepth(block), [image], part="blocks" if crd else "").view()
    if not crd:
        return made
    batch, _, *sides = made.axes  # the channel of the image comes first, the place in the block after it
    return Tensor(made.source, (batch, (Digit(C, image.channels), Digit(C, block * block, image.channels)), *sides))


def _four_axes(call: Call) -> Image:
    image = call.picture()
    if image.rank != 4:
        raise Refusal("it needs an image (N, C, H, W)")
    return image


def _viewed(tensor: Tensor, axes: Axes | None) -> Tensor:
    if axes is None:
        raise Refusal(f"it takes {_words(tensor.dims)} apart where no axis ends", VIEWS)
    return Tensor(tensor.source, axes)


def _words(dims: Sequence[Extent]) -> str:
    return "(" + ", ".join(map(str, dims)) + ")"


def flatten(call: Call) -> Tensor:
    tensor = call.tensor()
    axis = call.attribute("axis", 1)
    axis = axis if axis == tensor.rank else normal_axis(axis, tensor.rank)
    front, back = tensor.axes[:axis], tensor.axes[axis:]
    return Tensor(tensor.source, (tuple(d for a in front for d in a), tuple(d for a in back for d in a)))


def reshape(call: Call) -> Tensor:
    tensor, shape = call.tensor(), call.value(1)
    if not isinstance(shape, Known):
        call.constant(1)  # says so
        raise Refusal("its shape is computed from the image")
    target: list[Extent | None] = []
    for index, extent in enumerate(shape.array.reshape(-1).tolist()):
        if isinstance(extent, Open):
            target.append(extent)
        elif extent == 0 and not call.attribute("allowzero", 0) and index < tensor.rank:
            target.append(tensor.dims[index])
        elif extent >= 1 and extent == int(extent):
            target.append(int(extent))
        elif extent == -1:
            target.append(None)
        else:
            raise Refusal(f"its shape has an axis of {extent}", "the file is damaged")
    if len(target) > 8 or target.count(None) > 1:
        raise Refusal(f"its shape is {_words([-1 if t is None else t for t in target[:9]])}", "the file is damaged")
    return _viewed(tensor, views.reshape(tensor.axes, target))


def transpose(call: Call) -> Tensor:
    tensor = call.tensor()
    order = call.attribute("perm", list(range(tensor.rank))[::-1])
    if sorted(order) != list(range(tensor.rank)):
        raise Refusal(f"perm {order} is no order of {tensor.rank} axes", "the file is damaged")
    return Tensor(tensor.source, views.transpose(tensor.axes, order))


def squeeze(call: Call) -> Tensor:
    tensor = call.tensor()
    axes = call.axes(1)
    if axes is None:
        if any(isinstance(extent, Open) for extent in tensor.dims):
            raise Refusal("which axes it takes out depends on the image's size", "name the axes")
        gone = {i for i, extent in enumerate(tensor.dims) if extent == 1}
    else:
        gone = {normal_axis(a, tensor.rank) for a in axes}
    if wrong := [i for i in gone if tensor.dims[i] != 1]:
        raise Refusal(f"axis {wrong[0]} has an extent of {tensor.dims[wrong[0]]}, not 1", "the file is damaged")
    return Tensor(tensor.source, tuple(axis for i, axis in enumerate(tensor.axes) if i not in gone))


def unsqueeze(call: Call) -> Tensor:
    tensor, given = call.tensor(), call.axes(1) or []
    rank = tensor.rank + len(given)
    new = {normal_axis(a, rank) for a in given}
    if len(new) != len(given) or rank > 8:
        raise Refusal(f"it cannot add the axes {given[:9]}", "the file is damaged")
    left = iter(tensor.axes)
    return Tensor(tensor.source, tuple(() if i in new else next(left) for i in range(rank)))


ARRANGEMENT: dict[str, Converter] = {
    "Concat": concat, "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "Flatten": flatten,
    "Reshape": reshape, "Transpose": transpose, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
}
