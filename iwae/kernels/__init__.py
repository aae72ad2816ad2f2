"""What makes it fast: the fused Bernoulli likelihood, rounded matrix products, threads, traced steps and CUDA graphs.

Each has a plain formula beside it, which is used where a model is not the one that the fast path was written for."""
