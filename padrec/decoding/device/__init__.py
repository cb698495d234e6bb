"""What decoding needs of the device: CUDA graphs, compiled functions, kernel launches, clocks."""
