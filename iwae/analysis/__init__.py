"""Analyses of a model: latent space and maps, units, reconstructions, samples, and its development in training."""
