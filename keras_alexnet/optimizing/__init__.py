"""Trained models as short lists of fused operations, run by an engine that suits the machine.

`plan` reads a Keras model into `operations`; `converters` is its table of layers, `weighted` has
those that hold numbers. `optimize` ties plans and engines together. Imports `exporting` for the
runtimes of exported files.
"""
