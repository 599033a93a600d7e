"""From a spec to a `keras.Model` and its file, and from a model back to what it is.

`interface` is the only place that asks a model what it takes and gives. Imports `data` for the
preprocessing, `layers`, `specs`, `core`.
"""
