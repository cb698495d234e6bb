"""The target's forward passes: the runner, decoder layers with their KV cache, and the kernels that compute them."""
