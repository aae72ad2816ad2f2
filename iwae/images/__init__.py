"""From a picture to what a model sees: decoding of uploads in a limited process, and the preparation of a digit."""
