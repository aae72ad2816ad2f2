"""Measures of a model over a data set: NLL, ELBO, KL terms, active units; one sampling pass feeds them all."""
