"""What fastseg needs of an NVIDIA GPU beside TensorRT: memory, streams, copies, graphs."""
