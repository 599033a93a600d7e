"""Named arrays into Keras variables and back: layouts, tables, and what belongs to what.

`counterpart` is what a transfer and a check know of a pair of networks; specs make one in
`spec_tables`. Imports no framework until a variable is written.
"""
