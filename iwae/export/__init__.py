"""Exports: networks as ONNX or torch programs, model cards and reports."""
