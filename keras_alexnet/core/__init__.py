"""What everything stands on: the gate to the frameworks, Keras' private parts, files, tables.

Knows nothing of networks or images. Imports `errors` alone; frameworks, rich and typer only where
a function or a module says so.
"""
