"""Sums along one fixed binary tree, whatever order and places the parts of it are computed in.

Leaf v of the tree is lane v. A block (level, number) holds the sum of the leaves number * 2**level up to the next
multiple; its children are (level - 1, 2 * number) and the one after it. On the right edge, where the number of leaves
is no power of two, a block without a sibling stands for its parent too. Floating-point addition is commutative, so
this tree alone decides the bits of the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Block(NamedTuple):
    """A complete subtree."""

    level: int
    number: int


class TreeSum(Generic[T]):
    """Takes the leaves, or larger blocks, from left to right and adds up every block as soon as it is complete.

    Args:
        leaves: how many there are in the whole tree.
        add: the sum of a left and a right block.

    Attributes:
        blocks: the largest complete blocks so far, with their sums.

    Example:
        >>> tree = TreeSum(4, lambda left, right: f"({left}+{right})")
        >>> for leaf in range(4):
        ...     tree.push(Block(0, leaf), f"{leaf}")
        >>> tree.total()
        '((0+1)+(2+3))'
    """

    def __init__(self, leaves: int, add: Callable[[T, T], T]) -> None:
        self._leaves = leaves
        self._add = add
        self.blocks: list[tuple[Block, T]] = []

    def push(self, block: Block, value: T) -> None:
        """Take the block that follows those taken so far."""
        level, number = block
        while level < (self._leaves - 1).bit_length():
            if number % 2 and self.blocks and self.blocks[-1][0] == (level, number - 1):
                value = self._add(self.blocks.pop()[1], value)
            elif number % 2 or (number + 1) << level < self._leaves:
                break
            level, number = level + 1, number // 2
        self.blocks.append((Block(level, number), value))

    def total(self) -> T:
        """The sum of all leaves."""
        ((_, value),) = self.blocks
        return value


def blocks_of(first: int, last: int, leaves: int) -> list[Block]:
    """The largest complete blocks that cover the leaves from `first` up to, not with, `last`.

    Example:
        >>> blocks_of(2, 5, 8)
        [Block(level=1, number=1), Block(level=0, number=4)]
    """
    tree: TreeSum[None] = TreeSum(leaves, lambda left, right: None)
    for leaf in range(first, last):
        tree.push(Block(0, leaf), None)
    return [block for block, _ in tree.blocks]
