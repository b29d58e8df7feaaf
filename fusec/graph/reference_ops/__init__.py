"""What every layer means, in plain NumPy: the ground truth all kernels are compared with.

In: a layer, its weights and its input arrays, (images, channels, height, width) and all of one float dtype. Out: the layer's
output in the same layout and dtype. `reference.py` runs whole graphs with it, the schedule interpreter runs stages with it.

Output sizes are worked out here by counting windows, on purpose without `shapes.py`: a test holds the two against each other.
All arithmetic stays in the dtype of the inputs; weights are cast to it first.
"""

from fusec.graph.reference_ops import activations, joins, moves, reductions, windows
from fusec.graph.reference_ops.dispatch import apply

__all__ = ["activations", "apply", "joins", "moves", "reductions", "windows"]
