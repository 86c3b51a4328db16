"""Tensors of a fusion group: what it reads from outside, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass

from ..einsum.cascade import Expr
from .steps import Step


@dataclass(frozen=True)
class Stream:
    """A tensor read from the backing store through one access pattern."""

    tensor: str
    indices: tuple[Expr, ...]
    readers: tuple[Step, ...]
    depth: int
    """How many loops, from the outside, cut the tile that is held in the outermost level on the chip that holds it."""
    level: str = ""
    """This level; none: it goes past all of them."""
    inner: tuple[tuple[str, int], ...] = ()
    """Levels further inwards that hold a tile, and arrays that hold it in their registers, with the number of loops that cut it."""

    @property
    def chain(self) -> tuple[tuple[str, int], ...]:
        """Where tiles of it are held, from the outermost place inwards."""
        return ((self.level, self.depth), *self.inner) if self.level else self.inner


@dataclass(frozen=True)
class Resident:
    """A tensor made in the group."""

    tensor: str
    producer: Step
    readers: tuple[Step, ...]
    depth: int
    """How many loops cut the part that is alive at once."""
    place: str
    """Array, storage level or `forward`."""
    leaves: bool
    """Whether it goes to the backing store."""
    inner: tuple[tuple[str, int], ...] = ()
    """Levels and arrays further inwards where a tile of it is summed up, with the number of loops that cut the tile."""
