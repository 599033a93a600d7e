"""Several devices, in one process or in many, that train one model on the same batches.

`group` is what the loop asks of them, `placement` chooses one of the engines.
"""
