"""Element-wise expressions: arithmetic, choices and accesses over tiles.

In: a map expression. Out: the same expression over tiles. The two exceptions to IEEE are kept where they can matter:
`-inf - (-inf)` is -inf and `0 / 0` is 0. Whole numbers stay whole.
"""

from __future__ import annotations

from dataclasses import replace

from ..einsum.cascade import COMPARISONS, Access, Coord, Expr, Map, Number, Scalar, walk
from ..mapper.blocking import refuse
from ..mapper.program import WHOLE_COORDINATE
from ..mapper.turned import turned
from .exponent import LOG2E
from .memory import Memory, wide
from .tile import ATOM, BITWISE, COMPARISON, PRODUCT, SUM, UNARY, Kind, Tile, combine


class Elementwise(Memory):
    """Element-wise expressions of one kernel."""

    def real(self, tile: Tile) -> Tile:
        """The tile as 32-bit floating point numbers."""
        if tile.loaded:
            return Tile(f"{tile.index}.to(tl.float32)", tile.axes)
        if tile.kind == "bool":
            return Tile(f"tl.cast({tile.code}, tl.float32)", tile.axes)
        return tile

    def fractional(self, tile: Tile) -> Tile:
        """The tile as floating point even if it holds whole numbers."""
        if tile.kind == "int":
            if tile.code.isdigit():
                return Tile(f"{tile.code}.0")
            return Tile(f"tl.cast({tile.code}, tl.float32)", tile.axes)
        return self.real(tile)

    def truth(self, tile: Tile) -> Tile:
        """The tile as truth values: a number is true where it is not 0."""
        return tile if tile.kind == "bool" else Tile(f"{self.real(tile).within(SUM)} != 0", tile.axes, "bool", binding=COMPARISON)

    def computed(self, expr: Expr) -> str:
        """Name of the argument that holds a number computed on the host."""
        for name, known in self.body.computed.items():
            if known == expr:
                return name
        names = [node.name for node in walk(expr) if isinstance(node, Scalar)]
        folded = LOG2E in tuple(walk(expr)) and len(names) == 1
        name = self.argument(f"{names[0]}_log2e" if folded else f"number_{len(self.body.computed) + 1}")
        self.body.computed[name] = expr
        return name

    def edge(self, name: str) -> Tile:
        """First or last coordinate of a tiled rank."""
        rank, which = name.split(".")
        first = self.local(rank, "first")
        if which == "first":
            return Tile(first, (), "int")
        known = self.find(("last coordinate", rank))
        if known is None:
            known = Tile(self.local(rank, "last"), (), "int")
            self.emit(f"{known.code} = tl.minimum({first} + {self.blocks[rank]}, {self.extent(rank)}) - 1")
            self.scopes[-1].tiles[("last coordinate", rank)] = known
        return known

    def access(self, access: Access) -> Tile:
        """The tile of a tensor: an input is loaded; what the kernel made is at hand, else it is refused (E604)."""
        tensor = self.cascade.tensor(access.tensor)
        if tensor.kind == "input":
            return self.load(access)
        key: object = access.tensor
        if tensor.kind == "state":
            assert tensor.iterates is not None
            index = access.indices[tensor.ranks.index(tensor.iterates)]
            key = (access.tensor, "now" if index == Coord(WHOLE_COORDINATE) else self.state_position(access.tensor, index))
        tile = self.find(key)
        if tile is None:
            raise refuse("E604", f"`{access.tensor}` is not at hand in the Einsum of `{self._output()}`", self.einsum)
        other = self.einsum and turned(self.cascade, self.einsum, access)
        return replace(tile, axes=tuple(other.get(axis, axis) for axis in tile.axes)) if other else tile

    def choice(self, condition: Expr, yes: Expr, no: Expr) -> Tile:
        """`where`: without the test in steps that it leaves whole."""
        if condition in self.true:
            return self.expr(yes)
        test = self.truth(self.expr(condition))
        guarded, self.guarded = self.guarded, True
        a, b = self.real(self.expr(yes)), self.real(self.expr(no))
        self.guarded = guarded
        kind: Kind = "float" if "float" in (a.kind, b.kind) else a.kind
        (test, a, b), axes = combine([test, a, b], self.program.axes)
        return Tile(f"tl.where({test.code}, {a.code}, {b.code})", axes, kind)

    def map(self, expr: Map) -> Tile:
        """An operation on tiles, lined up along their common axes."""
        op = expr.op
        if op == "-" and not self.is_int(expr):
            return self.difference(expr.args[0], expr.args[1])
        tiles = [self.expr(arg) for arg in expr.args]
        if op in ("and", "or"):
            tiles, axes = combine([self.truth(t) for t in tiles], self.program.axes)
            sign = " & " if op == "and" else " | "
            return Tile(sign.join(t.within(PRODUCT) for t in tiles), axes, "bool", binding=BITWISE)
        if op == "not":
            (test,) = (self.truth(t) for t in tiles)
            return Tile(f"~{test.within(ATOM)}", test.axes, "bool", binding=UNARY)
        tiles = [self.real(t) for t in tiles]
        lined, axes = combine(tiles, self.program.axes)
        kind: Kind = "int" if all(t.kind == "int" for t in tiles) else "float"
        if kind == "int" and self.may_be_wide(expr):
            lined[0] = wide(lined[0])
        a = lined[0]
        if op in COMPARISONS:
            return Tile(f"{a.within(SUM)} {op} {lined[1].within(SUM)}", axes, "bool", binding=COMPARISON)
        match op:
            case "+" | "-":
                return Tile(f"{a.within(SUM)} {op} {lined[1].within(PRODUCT)}", axes, kind, binding=SUM)
            case "*":
                return Tile(f"{a.within(PRODUCT)} * {lined[1].within(UNARY)}", axes, kind, binding=PRODUCT)
            case "/":
                return self.quotient(expr, [self.fractional(t) for t in lined], axes)
            case "//" | "%":
                return self.whole_quotient(op, expr, lined, axes, kind)
            case "**":
                return self.power(expr, lined, axes, kind)
            case "neg" if a.code == 'float("inf")':
                return Tile('float("-inf")')
            case "neg":
                return Tile(f"-{a.within(ATOM)}", axes, kind, binding=UNARY)
            case "min" | "max":
                return Tile(f"tl.{op}imum({a.code}, {lined[1].code})", axes, kind)
            case "clamp":
                return Tile(f"tl.minimum(tl.maximum({a.code}, {lined[1].code}), {lined[2].code})", axes, kind)
            case "abs":
                return Tile(f"tl.abs({a.code})", axes, kind)
            case "floor" | "ceil" | "round" if kind == "int":
                return a
            case "relu" if kind == "int":
                return Tile(f"tl.maximum({a.code}, 0)", axes, kind)
        a = self.fractional(a)
        if op in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "erf", "sin", "cos", "floor", "ceil"):
            return Tile(f"tl.{op}({a.code})", axes)
        name = f"_{op}"
        self.body.helpers.add(name)
        return Tile(f"{name}({a.code})", axes)

    def difference(self, a: Expr, b: Expr) -> Tile:
        """a - b with -inf - (-inf) = -inf, by the cheapest code that is right for these operands."""
        if self.never_empty(a) or self.never_empty(b):
            tiles, axes = combine([self.real(self.expr(a)), self.real(self.expr(b))], self.program.axes)
            return Tile(f"{tiles[0].within(SUM)} - {tiles[1].within(PRODUCT)}", axes, binding=SUM)
        if a in self.bounded_by(b):
            # a <= b: where b is -inf so is a, and a - 0 is what is wanted
            right = self.real(self.expr(b))
            safe = self.find(("safe", right.code))
            if safe is None:
                name = self.fresh(f"{right.code}_safe") if right.code.isidentifier() else self.fresh("safe")
                self.emit(f'{name} = tl.where({right.code} == float("-inf"), 0.0, {right.code})')
                safe = Tile(name, right.axes)
                self.scopes[-1].tiles[("safe", right.code)] = safe
            tiles, axes = combine([self.real(self.expr(a)), safe], self.program.axes)
            return Tile(f"{tiles[0].within(SUM)} - {tiles[1].code}", axes, binding=SUM)
        self.body.helpers.add("_minus")
        tiles, axes = combine([self.real(self.expr(a)), self.real(self.expr(b))], self.program.axes)
        return Tile(f"_minus({tiles[0].code}, {tiles[1].code})", axes)

    def quotient(self, expr: Map, tiles: list[Tile], axes: tuple[str, ...]) -> Tile:
        """a / b with 0 / 0 = 0."""
        a, b = expr.args
        nonzero = isinstance(b, Number) and b.value != 0
        nonzero |= isinstance(a, Number) and a.value != 0
        if nonzero:
            return Tile(f"{tiles[0].within(PRODUCT)} / {tiles[1].within(UNARY)}", axes, binding=PRODUCT)
        self.body.helpers.add("_over")
        return Tile(f"_over({tiles[0].code}, {tiles[1].code})", axes)

    def whole_quotient(self, op: str, expr: Map, tiles: list[Tile], axes: tuple[str, ...], kind: Kind) -> Tile:
        """a // b or a % b, rounded down as in the language: that of the hardware where neither can be negative, else a helper."""
        a, b = expr.args
        if kind == "int" and tiles[0].axes and all(isinstance(node, Number | Scalar | Map) for node in walk(b)):
            self.body.divisors.update((node.name, None) for node in walk(b) if isinstance(node, Scalar))
        if kind == "int":
            if self.never_negative(a) and self.never_negative(b):
                return Tile(f"{tiles[0].within(PRODUCT)} {op} {tiles[1].within(UNARY)}", axes, kind, binding=PRODUCT)
            name = "_floor_div" if op == "//" else "_floor_mod"
        else:
            name = "_floor_div_float" if op == "//" else "_floor_mod_float"
        self.body.helpers.add(name)
        return Tile(f"{name}({tiles[0].code}, {tiles[1].code})", axes, kind)

    def power(self, expr: Map, tiles: list[Tile], axes: tuple[str, ...], kind: Kind) -> Tile:
        """a ** b: roots and whole powers up to 16 by themselves, any other by exponential and logarithm."""
        exponent = expr.args[1]
        negative = isinstance(exponent, Map) and exponent.op == "neg" and isinstance(exponent.args[0], Number)
        number = exponent.args[0] if negative and isinstance(exponent, Map) else exponent
        if isinstance(number, Number) and number.value == 0.5:
            return Tile(f"tl.{'r' if negative else ''}sqrt({self.fractional(tiles[0]).code})", axes)
        if isinstance(number, Number) and isinstance(number.value, int) and 1 <= number.value <= 16:
            base = tiles[0]
            if not base.code.isidentifier():
                name = self.fresh("base")
                self.emit(f"{name} = {base.code}")
                base = Tile(name, base.axes, base.kind)
            code = _chain(base.code, number.value)
            if negative:
                return Tile(f"1.0 / ({code})", axes, binding=PRODUCT)
            return Tile(code, axes, kind, binding=PRODUCT if number.value > 1 else ATOM)
        self.body.helpers.add("_power")
        lined = [self.fractional(tile) for tile in tiles]
        return Tile(f"_power({lined[0].code}, {lined[1].code})", axes)


def _chain(base: str, power: int) -> str:
    """x ** n by few multiplications."""
    if power == 1:
        return base
    half = _chain(base, power // 2)
    square = f"{half} * {half}" if power // 2 == 1 else f"({half}) * ({half})"
    return f"{square} * {base}" if power % 2 else square
