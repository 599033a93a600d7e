"""From images to probabilities: the predictor, its views, evaluation, and Ray's large jobs.

Imports `models` and `data`; knows nothing of training.
"""
