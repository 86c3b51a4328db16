"""Unit triangular systems within a chunk, solved by products of matrices: the inverse by halving, blocks by elimination.

In: (I - N) U = b, where N is strictly lower triangular along positions of a chunk. Out: Einsums for T = (I - N)^-1, so that
U = T b. The inverse of two halves is known when those of the halves are:

    [A   0]^-1     [A^-1             0   ]
    [-N  B]     =  [B^-1 N A^-1      B^-1]

With T_s the inverse of the blocks of s positions along the diagonal, and mask_s true between the two halves of each block of 2s,

    T_1 = I        T_2 = I + where(mask_1, N, 0)        T_2s = T_s + T_s where(mask_s, N, 0) T_s

Each level is two products of matrices, and every entry of T that is not yet there is 0, so nothing cancels. (Powers of N, whose
product (I + N)(I + N^2)(I + N^4)... is the inverse too, grow and cancel where a key is repeated.) Several unknowns at each position
are eliminated one by one: what is left of each system is strictly lower triangular again, whatever the order of the unknowns.

This is the WY representation of products of Householder-like matrices as chunks of the delta rule use it (Yang et al.,
"Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024, section 3), with the triangular inverse
by halving in place of a substitution position by position.
"""

from __future__ import annotations

from ..cascade import Access, Coord, Expr, Map, Number, Reduce, free_ranks, substitute
from .algebra import ONE, ZERO, add
from .chunk import Chunk

System = dict[tuple[int, int], Access]
"""N by unknown of the row and unknown of the column, at (row, column) positions; what is 0 is left out."""


class Solver:
    """Writes the Einsums. Rows of matrices are positions `past`, columns the first spare name; so vectors to multiply with lie
    along the columns and solutions along the rows."""

    def __init__(self, chunk: Chunk, length: int) -> None:
        self.chunk, self.length = chunk, length
        self.row = chunk.past
        self.column, self.first, self.second = chunk.spare

    def renamed(self, tensor: Expr, **places: str) -> Expr:
        """A matrix or vector at other names of positions."""
        names = {"row": self.row, "column": self.column}
        return substitute(tensor, {names[key]: Coord(name) for key, name in places.items()})

    def inverse(self, name: str, system: Access | None) -> Access | None:
        """T; None where it is I."""
        if system is None or self.length == 1:
            return None
        chunk, row, column = self.chunk, Coord(self.row), Coord(self.column)
        ranks = free_ranks(system)
        own = Map("==", (row, column))
        body = Map("where", (own, ONE, Map("where", (self.between(1, self.row, self.column), system, ZERO))))
        found = chunk.define(f"{name}_inverse_2", ranks, body)
        size = 2
        while size < self.length:
            masked = Map("where", (self.between(size, self.second, self.first), self.matrix(system, self.second, self.first), ZERO))
            half = Reduce("sum", (self.second,), Map("*", (self.renamed(found, column=self.second), masked)))
            left = chunk.define(f"{name}_half_{2 * size}", (ranks - {self.column}) | {self.first}, half)
            joined = Reduce("sum", (self.first,), Map("*", (left, self.renamed(found, row=self.first))))
            corner = chunk.define(f"{name}_corner_{2 * size}", ranks, joined)
            found = chunk.define(f"{name}_inverse_{2 * size}", ranks, Map("+", (found, corner)))
            size *= 2
        return found

    def matrix(self, matrix: Access, row: str, column: str) -> Expr:
        """A matrix at (row, column) of other names."""
        return self.renamed(matrix, row=row, column=column)

    def between(self, size: int, row: str, column: str) -> Expr:
        """Do two positions lie in one block of twice the size, in different halves?"""

        def block(place: str, length: int) -> Expr:
            return Map("//", (Coord(place), Number(length)))

        halves = Map("!=", (Coord(row), Coord(column)) if size == 1 else (block(row, size), block(column, size)))
        return Map("and", (Map("==", (block(row, 2 * size), block(column, 2 * size))), halves))

    def times(self, name: str, matrix: Access | None, vector: Access) -> Access:
        """A matrix times a vector that lies along the columns: along the rows; the matrix I is None."""
        if matrix is None:
            moved = self.renamed(vector, column=self.row)
            return self.chunk.define(name, free_ranks(moved), moved)
        body = Reduce("sum", (self.column,), Map("*", (matrix, vector)))
        return self.chunk.define(name, free_ranks(body), body)

    def solve(self, names: list[str], system: System, known: list[Access]) -> list[Access]:
        """The unknowns along the rows."""
        many = range(len(names))
        system, known = dict(system), list(known)
        inverses: list[Access | None] = []
        for p in many:
            inverses.append(self.inverse(names[p], system.get((p, p))))
            for q in many[p + 1 :]:
                if (q, p) in system:
                    self.eliminate(names, system, known, inverses[p], p, q)
        solved: dict[int, Access] = {}
        for p in reversed(many):
            value: Expr = known[p]
            for q in many[p + 1 :]:
                if (p, q) in system:
                    value = add(value, self.applied(f"{names[p]}_later", system[p, q], solved[q]))
            if value != known[p]:
                known[p] = self.chunk.define(f"{names[p]}_start", free_ranks(value), value)
            solved[p] = self.times(f"{names[p]}_solved", inverses[p], known[p])
        return [solved[p] for p in many]

    def eliminate(
        self, names: list[str], system: System, known: list[Access], inverse: Access | None, p: int, q: int
    ) -> None:  # fmt: skip
        """Unknown p out of the rows of unknown q."""
        chunk, name = self.chunk, names[q]
        reach = system[q, p]  # (rows of q, positions of p)
        if inverse is not None:
            body = Reduce(
                "sum", (self.first,), Map("*", (self.matrix(reach, self.row, self.first), self.renamed(inverse, row=self.first)))
            )
            reach = chunk.define(f"{name}_reach", free_ranks(body), body)
        known[q] = chunk.define(
            f"{name}_start", free_ranks(known[q]) | free_ranks(known[p]),
            add(known[q], self.applied(f"{name}_before", reach, self.renamed(known[p], column=self.row))),
        )  # fmt: skip
        for other in range(p + 1, len(names)):
            if (p, other) not in system:
                continue
            through = Map("*", (self.renamed(reach, column=self.first), self.matrix(system[p, other], self.first, self.column)))
            body = Reduce("sum", (self.first,), through)
            more = chunk.define(f"{name}_through", free_ranks(body), body)
            if (q, other) in system:
                more = chunk.define(f"{name}_pairs", free_ranks(more) | free_ranks(system[q, other]), add(system[q, other], more))
            system[q, other] = more

    def applied(self, name: str, matrix: Access, vector: Expr) -> Access:
        """A matrix times a vector that lies along the rows: along the columns."""
        placed = self.matrix(matrix, self.column, self.first)
        body = Reduce("sum", (self.first,), Map("*", (placed, self.renamed(vector, row=self.first))))
        return self.chunk.define(name, free_ranks(body), body)
