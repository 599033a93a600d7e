"""Data sets where they lie: CIFAR's archives, folders, CSV files, ILSVRC; `registry` names them.

Each yields a `DataSet` of `examples`. Imports neither `augmentation` nor `batches`.
"""
