"""The last step of a fastText prediction: the mean of a text's rows → the best label and its score, by softmax or by a tree of labels.

The library adds up float32 products one after the other. Here they are added up by BLAS, in an order that depends on how many texts there
are; :class:`Products` sees to it that no sum is ever rounded, so that the order does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import iadd

import numpy as np

from balancing.fasttext_file import MOST_COUNTED, ModelFile

#: What the library adds to a probability before it takes its logarithm. It names no label whose score is below it.
EPSILON = 1e-5
#: Columns whose products are added without rounding, and the bits of a number of the matrix and of a vector: 25 + 24 + log2(16) = 53.
_EXACT_COLUMNS, _EXACT_BITS = 16, (25, 24)
#: A block of products is small enough for OpenBLAS to work in one thread (2^18 multiplications): a worker has but one core, and threads
#: that wait for others of theirs burn it.
_BLAS_ROWS, _BLAS_TEXTS = 256, 64


def _rounded(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Each row rounded to multiples of 2^-bits of a power of two that its numbers are below: float64."""
    _, exponents = np.frexp(np.abs(matrix).max(axis=1, initial=0.0))
    rounded = matrix * np.ldexp(1.0, bits - exponents)[:, None]
    np.rint(rounded, out=rounded)
    rounded *= np.ldexp(1.0, exponents - bits)[:, None]
    return rounded


class Products:
    """Products of vectors with the rows of a matrix, the same bits whatever the number of either.

    Of 16 columns at a time: their numbers are rounded to 24 and 25 bits, so that the sum of 16 products has no more than the 53 bits of a
    float64, on its way too, and is never rounded. The sums of such columns are added in order.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._parts = [_rounded(part, _EXACT_BITS[0]) for part in _columns(matrix.astype(np.float64))]

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """(n, dim) float64 → float64, (rows, n)."""
        products = (_multiply(rows, _rounded(part, _EXACT_BITS[1])) for rows, part in zip(self._parts, _columns(vectors), strict=True))
        return reduce(iadd, products)


def _columns(matrix: np.ndarray) -> list[np.ndarray]:
    return [matrix[:, first : first + _EXACT_COLUMNS] for first in range(0, matrix.shape[1], _EXACT_COLUMNS)]


def _multiply(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    products = np.empty((len(rows), len(vectors)))
    for row in range(0, len(rows), _BLAS_ROWS):
        for text in range(0, len(vectors), _BLAS_TEXTS):
            there = products[row : row + _BLAS_ROWS, text : text + _BLAS_TEXTS]
            np.matmul(rows[row : row + _BLAS_ROWS], vectors[text : text + _BLAS_TEXTS].T, out=there)
    return products


class Softmax:
    """The label of the greatest product; its score is the share of its exponential among those of all."""

    def __init__(self, model: ModelFile) -> None:
        # Of labels that are alike the library takes the last.
        self.labels = np.arange(len(model.output))[::-1]
        self._products = Products(model.output[::-1])
        self._sum_bits = min(40, 52 - len(model.output).bit_length())

    def best(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, dim) → label and score of each: int64 and float64, (n,)."""
        products = self._products.of(vectors)
        winner = products.argmax(axis=0)
        products -= products.max(axis=0)
        np.exp(products, out=products)
        # Rounded to integers, so that their sum is the same in whatever order.
        one = float(1 << self._sum_bits)
        products *= one
        np.rint(products, out=products)
        return self.labels[winner], one / products.sum(axis=0) + EPSILON


class Tree:
    """Hierarchical softmax: labels are the leaves of a Huffman tree, each inner node has a row of the output matrix and sends a text to its
    right by the logistic function of the product, and the score of a label is the product of the probabilities on its way."""

    def __init__(self, model: ModelFile) -> None:
        children = huffman(model.label_counts)
        n = len(model.label_counts)
        nodes, level_ends = [2 * n - 2], [1]
        for node in nodes:
            nodes.extend(children.get(node, ()))
        inner = [node for node in nodes if node >= n]
        # Nodes stand level by level, so the children of the k-th inner node are the nodes 2k + 1 and 2k + 2.
        place = {node: k for k, node in enumerate(nodes)}
        self._inner = np.array([place[node] for node in inner], np.int64)
        while level_ends[-1] < len(nodes):
            level_ends.append(1 + 2 * int(np.searchsorted(self._inner, level_ends[-1])))
        self._level_ends = level_ends
        self._minus_products = Products(-model.output[np.array(inner, np.int64) - n])
        # Of labels that are alike the library takes the last on a walk from left to right.
        leaves, stack = [], [2 * n - 2]
        while stack:
            node = stack.pop()
            leaves += [node] if node < n else []
            stack += reversed(children.get(node, ()))
        self.labels = np.array(leaves, np.int64)
        self._leaves = np.array([place[leaf] for leaf in leaves], np.int64)

    def best(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, dim) → label and score of each: int64 and float64, (n,)."""
        right = self._minus_products.of(vectors)
        with np.errstate(over="ignore"):
            np.exp(right, out=right)
        right += 1.0
        np.reciprocal(right, out=right)
        right += EPSILON
        # To the left it is 1 - the probability, and EPSILON to that as well.
        both = 1.0 + 2 * EPSILON
        scores = np.empty((2 * len(right) + 1, len(vectors)))
        scores[0] = 1.0
        first = 0
        for end in self._level_ends[1:]:
            last = (end - 1) // 2
            parents = scores.take(self._inner[first:last], axis=0)
            children = scores[2 * first + 1 : end]
            np.multiply(parents, right[first:last], out=children[1::2])
            parents *= both
            np.subtract(parents, children[1::2], out=children[::2])
            first = last
        of_leaves = scores.take(self._leaves, axis=0)
        best = of_leaves.max(axis=0)
        leaf, text = np.divmod(np.flatnonzero(of_leaves == best), len(vectors))
        labels = np.empty(len(vectors), np.int64)
        # Of leaves that are alike the last is written last.
        labels[text] = self.labels[leaf]
        return labels, best


def huffman(counts: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Children (left, right) of each inner node of the tree of labels: n labels are the nodes 0 to n - 1, 2n - 2 is the root.

    The two nodes of the least count are joined until there is one; of a label and a node that count the same, the node is taken first.
    Labels are looked at from the last to the first, as they stand in a file by descending count.
    """
    n = len(counts)
    count = [*counts, *([MOST_COUNTED] * (n - 1))]
    leaf, node = n - 1, n
    children = {}
    for parent in range(n, 2 * n - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and count[leaf] < count[node]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(node)
                node += 1
        children[parent] = (pair[0], pair[1])
        count[parent] = count[pair[0]] + count[pair[1]]
    return children
