"""A narrow network is a wide one padded with zeros: narrow tree -> wide tree, and back.

Works on any tree of arrays in which a narrow leaf is the leading corner of a wide one: parameters, BatchNorm
statistics and the optimiser's moments alike. Why padded entries stay zero: a channel without incoming weights
outputs zero, and without outgoing weights it receives no gradient.
"""

import jax
import numpy as np


def pad(narrow, shapes):
    """Pads every leaf with zeros behind its end.

    Args:
      narrow: tree of arrays.
      shapes: tree of the same structure whose leaves have the wide `shape`.

    Returns:
      Tree of NumPy arrays with those shapes.

    Raises:
      ValueError: the trees differ in structure, or a leaf does not fit.
    """

    def pad_leaf(leaf, wide):
        leaf = np.asarray(leaf)
        behind = [(0, w - n) for n, w in zip(leaf.shape, wide.shape, strict=True)]
        return np.pad(leaf, behind) if behind else leaf  # np.pad takes no array without axes

    return jax.tree.map(pad_leaf, narrow, shapes)


def unpad(wide, shapes):
    """Takes the leading corner of the given shapes out of every leaf: the inverse of `pad`."""
    return jax.tree.map(lambda leaf, narrow: leaf[tuple(slice(n) for n in narrow.shape)], wide, shapes)
