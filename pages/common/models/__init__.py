"""Choosing models A and B, and adding some of your own."""
