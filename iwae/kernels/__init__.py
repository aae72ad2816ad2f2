"""What makes it fast: matrix products and their precision, the fused Bernoulli likelihood, threads, steps for a GPU.

Each has a plain formula beside it, which is used where a model is not the one that the fast path was written for."""
