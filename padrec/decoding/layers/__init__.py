"""The target's forward passes: the runner, fused layers, attention and the KV cache."""
