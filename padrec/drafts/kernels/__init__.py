"""GPU kernels of drafts in Triton's language, which comes with PyTorch's GPU builds only."""
