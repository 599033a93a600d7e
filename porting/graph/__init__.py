"""Any torch network of images into native Keras: `torch.export` reads it, stock layers compute it.

`reader` and `zoo` run torch, `builder` and `ops` run Keras; between them lies a `plan`, which is
JSON and arrays. May import `weights`, `checkpoints` and what is below them.
"""
