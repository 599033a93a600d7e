"""What runs a plan: a framework, an exported file's runtime, or Keras as it is.

`registry` names them and imports none. Each imports `operations` and `plan`.
"""
