"""The commands of `python -m porting`; `app` registers them, `console` prints their results.

The error funnel is that of `keras_alexnet.commands`.
"""
