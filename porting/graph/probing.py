"""What a resize does to rows and columns, found out by trying it in torch."""

from typing import Any

from keras_alexnet.core.backend import require

_AT_A_TIME = 64  # rows or columns


def probed(node: Any) -> dict[str, Any]:
    """Return the matrices (in, out) by which a node multiplies `rows` and `columns`.

    There are none where only the images tell the size.
    """
    torch = require("torch")
    (_, _, *before), (_, _, *after) = (n.meta["val"].shape for n in (node.args[0], node))
    if not all(isinstance(n, int) for n in (*before, *after)):
        return {}
    others = torch.fx.node.map_arg(node.args[1:], lambda each: int(each.meta["val"]))
    found = {}
    for name, axis in (("rows", 2), ("columns", 3)):
        # Maps in which one row, or column, is 1: what comes of them is its share of all.
        n = before[axis - 2]
        shares = []
        for places in torch.arange(n).split(_AT_A_TIME):
            probe = (places[:, None] == torch.arange(n)).double()
            probe = (probe[:, :, None] if axis == 2 else probe[:, None]).expand(-1, *before)
            image = node.target(probe[None], *others, **node.kwargs)[0]
            shares.append(image[:, :, 0] if axis == 2 else image[:, 0])
        found[name] = torch.cat(shares)
    return found
