"""Some steps of SGD in torch and in Keras, compared tensor by tensor.

Built like `checks`, whose records it shares.
"""
