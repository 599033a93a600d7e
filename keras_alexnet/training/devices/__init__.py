"""Several devices, in one process or in many, that train one model on the same batches."""
