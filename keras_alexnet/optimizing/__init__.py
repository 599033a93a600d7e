"""Trained models as short lists of fused operations, run by an engine that suits the machine.

`plan` reads a Keras model into `operations`; `converters` is its table of layers, `weighted` has
those that hold numbers. An engine (`torch_engine`, `tensorflow_engine`, `jax_engine`) runs such a
plan; `runtimes` runs exported files instead. `model` ties them together: `optimize` and what it
returns.
"""
