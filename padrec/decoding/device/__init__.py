"""What decoding asks of the device: CUDA graphs, compiled functions, kernel launches, clocks."""
