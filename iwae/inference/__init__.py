"""The posterior p(h|x) and log p(x) of one image: importance sampling, annealing, occlusion, the exact grid."""
