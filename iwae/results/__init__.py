"""The table: published numbers, rows of our models, comparisons, and the documents that hold them."""
