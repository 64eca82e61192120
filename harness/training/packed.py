"""Packed rows: documents in a row, of which no position sees another.

B rows, T time, C channels, N = B·T, D documents and pieces of them, L positions of the longest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def features_apart(forward: Callable[[Tensor], Tensor], ids_BT: Tensor, marker: int) -> Tensor:
    """The features of packed rows, (B, T, C), each of the tokens of its own document alone.

    forward: from ids (B, T) to features. A marker in a row is the first token of the document
    behind it. Documents are laid side by side, those of about one length together, and their
    features put back. So whatever a model carries along begins anew with each: keys and values,
    states, the inputs of convolutions, positions, patches. The padding is less than the tokens.
    """
    begins_BT = ids_BT == marker
    begins_BT[:, 0] = True
    own_N = begins_BT.flatten().cumsum(0) - 1  # each position's document
    begins_D = begins_BT.flatten().nonzero()[:, 0]
    lengths_D = own_N.bincount()
    place_N = torch.arange(len(own_N), device=own_N.device) - begins_D[own_N]
    size_D = (lengths_D - 1).double().log2().floor()  # -inf of one token
    found, at = [], []
    for size in size_D.unique().tolist():
        chosen_D = size_D == size
        inside_N = chosen_D[own_N].nonzero()[:, 0]
        row_N = (chosen_D.cumsum(0) - 1)[own_N[inside_N]]
        shape = int(chosen_D.sum()), int(lengths_D[chosen_D].max())
        rows_DL = ids_BT.new_full(shape, marker)
        rows_DL[row_N, place_N[inside_N]] = ids_BT.flatten()[inside_N]
        found.append(forward(rows_DL)[row_N, place_N[inside_N]])
        at.append(inside_N)
    return torch.cat(found)[torch.cat(at).argsort()].unflatten(0, ids_BT.shape)
