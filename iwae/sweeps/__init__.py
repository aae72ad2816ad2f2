"""Grids of trainings: their cells, and the pools of processes or Ray tasks that train them."""
