"""Side-by-side measurements: this package, pythae, and the machine's own limit. `python -m benchmarks --help`.

A section is a module of this package with one function, ``measure(settings) -> report.Section``; its name stands in
``settings.SECTIONS``. Nothing else needs to know of it.
"""
