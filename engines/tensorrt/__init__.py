"""Networks as TensorRT engines: built from ONNX, checked against the reference, cached, run."""
