"""Networks in ONNX files: the protobuf, the values of shapes, and operators as layers. `graph/read_onnx.py` is the way in."""
