"""What leaves the program: exported networks, model cards and reports."""
