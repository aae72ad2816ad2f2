"""A model looked at: its latent space and maps, its units, reconstructions, samples, and its history in training."""
