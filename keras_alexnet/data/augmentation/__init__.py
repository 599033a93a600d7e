"""What may happen to a training image: the record, the random numbers, and those who apply them.

`array_ops` lets NumPy, TensorFlow and Keras share the arithmetic. Imports nothing of `sources` or
`batches`.
"""
