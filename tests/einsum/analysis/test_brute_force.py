"""Pass counts equal those of a simulation that knows only the definition: on random cascades and on the examples."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.analysis.passes import levels
from einsmith.einsum.cascade import Cascade

from .brute import Simulation
from .specs import EXAMPLES

LENGTH = 40
"""Extent of the fiber: several times the distance that the simulation takes as bounded."""

Draw = Callable[[st.SearchStrategy[object]], object]


class _Writer:
    """Writes a random cascade over a fiber m, a second rank q of the same extent, and small ranks."""

    def __init__(self, draw: Draw, features: frozenset[str]) -> None:
        self.draw, self.features = draw, features
        self.vectors = ["X", "Z"]
        self.scalars: list[str] = []
        self.tiles: list[str] = []
        self.states: list[str] = []
        self.plain = ["X", "Z"]  # those that depend on nothing complete
        self.matrices: list[str] = []
        self.lines: list[str] = []

    def pick(self, *options: str) -> str:
        return str(self.draw(st.sampled_from(options)))

    def vector(self, at: str = "m") -> str:
        """An element of some vector at (or near) a position."""
        name = self.pick(*self.vectors)
        if "window" in self.features and self.pick("here", "here", "near") == "near":
            return f"{name}[clamp({at} + {self.pick('1', '-1', '-3')}, 0, M - 1)]"
        return f"{name}[{at}]"

    def operand(self, at: str = "m") -> str:
        options = ["vector", "vector"]
        options += ["scalar"] * bool(self.scalars)
        options += ["state"] * (bool(self.states) and at == "m")
        options += ["end", "mirror"] if "mirror" in self.features else ["end"]
        match self.pick(*options):
            case "scalar":
                return self.pick(*self.scalars)
            case "state":
                return f"{self.pick(*self.states)}[{self.pick('m', 'm + 1', 'M')}]"
            case "end":
                return f"{self.pick(*self.plain)}[{self.pick('0', 'M - 1', '1')}]"
            case "mirror":
                return f"{self.pick(*self.vectors)}[M - 1 - {at}]"
        return self.vector(at)

    def line(self, number: int) -> None:
        before = len(self.vectors), len(self.lines)
        self._line(number)
        if len(self.vectors) > before[0] and not self._complete("".join(self.lines[before[1] :])):
            self.plain.append(self.vectors[-1])

    def _complete(self, line: str) -> bool:
        """Whether a line may depend on something complete."""
        names = set(re.findall(r"[A-Z]\w*(?=\[)|T\d+", line.partition("=")[2]))
        return "M - 1]" in line or "q" in line or not names <= set(self.plain)

    def _line(self, number: int) -> None:
        name = f"T{number}"
        kinds = ["map", "map", "sum", "scan", "state", "scalar", "pair", "fold"]
        kinds += ["tile", "merge"] if "split" in self.features else []
        kinds += ["gather"] if "gather" in self.features else []
        match self.pick(*(kind for kind in kinds if kind not in ("scalar",) or self.scalars)):
            case "map":
                self.lines.append(f"{name}[m] = {self.operand()} * {self.operand()}")
                self.vectors.append(name)
            case "sum":
                self.lines.append(f"{name} = {self.pick('sum', 'max', 'mean')}[m]({self.operand()} * {self.vector()})")
                self.scalars.append(name)
            case "scan":
                self.lines.append(f"{name}[m] = {self.pick('cumsum', 'cummax')}[m]({self.vector()} * {self.operand()})")
                self.vectors.append(name)
            case "state":
                self.lines += [f"{name}[0] = 1", f"{name}[m+1] = {name}[m] * {self.operand()} + {self.vector()}"]
                self.states.append(name)
            case "scalar":
                self.lines.append(f"{name} = exp({self.pick(*self.scalars)}) + {self.pick(*self.scalars)}")
                self.scalars.append(name)
            case "pair":  # as in attention: every position with every other, or with those before it
                inside = f"{self.vector('q')} * {self.vector('m')}"
                masked = f"where(q <= m, {inside}, 0)" if self.pick("all", "causal") == "causal" else inside
                self.lines.append(f"{name}[m] = sum[q]({masked})")
                self.vectors.append(name)
            case "fold":
                self.lines.append(f"{name}[m] = sum[w]({self.pick(*self.vectors)}[clamp(m + w - 1, 0, M - 1)] * {self.operand()})")
                self.vectors.append(name)
            case "tile":
                vector = self.pick(*self.vectors)
                factor = self.pick("1", *(f"{tile}[m1]" for tile in self.tiles), *self.scalars)
                self.lines.append(f"{name}[m1] = {self.pick('sum', 'max')}[m0]({vector}[m1*M0+m0] * {factor})")
                self.tiles.append(name)
            case "merge":
                if not self.tiles:
                    return self._line(number)
                tile = self.pick(*self.tiles)
                match self.pick("whole", "scale", "back"):
                    case "whole":
                        self.lines.append(f"{name} = max[m1]({tile}[m1])")
                        self.scalars.append(name)
                    case "scale":
                        self.lines.append(f"{name}[m1] = exp({tile}[m1]) * {self.pick('2', *self.scalars)}")
                        self.tiles.append(name)
                    case "back":
                        self.lines.append(f"{name} = sum[m1,m0]({self.pick(*self.vectors)}[m1*M0+m0] * {tile}[m1])")
                        self.scalars.append(name)
            case "gather":
                self.lines.append(f"I{name}[j] = argtopk[m]({self.vector()} * {self.operand()})")
                self.lines.append(f"{name} = sum[j]({self.pick(*self.vectors)}[I{name}[j]])")
                self.scalars.append(name)
        return None


@st.composite
def specs(draw: Draw, features: frozenset[str], most: int = 4) -> str:
    """The text of a random spec."""
    writer = _Writer(draw, features)
    for number in range(int(draw(st.integers(1, most)))):  # type: ignore[call-overload]
        writer.line(number)
    names = [*writer.vectors[2:], *writer.scalars, *writer.tiles, *writer.states]
    tiled = "split" in features
    fiber = "{extent: M, split: [m1, m0], tile: M0, count: M1}" if tiled else "M"
    sizes = f"{{M: {LENGTH}, {'M0: 2, ' if tiled else ''}J: 2}}"
    return (
        "name: random\n"
        f"ranks: {{m: {fiber}, q: M, w: 3, j: J}}\n"
        "inputs: {X: [m], Z: [m]}\n"
        f"sizes: {sizes}\n"
        "cascade: |\n" + "".join(f"  {line}\n" for line in writer.lines) + f"outputs: [{names[-1]}]\n"
    )


def compare(cascade: Cascade, rank: str) -> None:
    """As many passes as with sweeps upwards alone; or fewer, if sweeps downwards do save some."""
    counted, simulation = levels(cascade, rank).passes[rank], Simulation(cascade, rank)
    upwards = simulation.passes()
    assert counted <= upwards
    if counted < upwards:
        assert counted == simulation.least()


@settings(max_examples=100)
@given(specs(frozenset({"window", "gather"})))
def test_equal_the_simulation(text: str) -> None:
    cascade = spec.loads(text)
    for rank in ("m", "q"):
        compare(cascade, rank)


@settings(max_examples=100)
@given(specs(frozenset({"split"})))
def test_equal_the_simulation_on_tiles(text: str) -> None:
    cascade = spec.loads(text)
    compare(cascade, "m")


@settings(max_examples=40)
@given(specs(frozenset({"mirror"}), most=3))
def test_equal_the_best_order_of_sweeps(text: str) -> None:
    """Sweeps may go either way: the simulation tries all directions, for each sweep and each Einsum."""
    cascade = spec.loads(text)
    assert levels(cascade, "m").passes["m"] == Simulation(cascade, "m").least()


SMALL = {
    "B": 1,
    "H": 1,
    "P": 3,
    "N": LENGTH,
    "L": LENGTH,
    "M": LENGTH,
    "M0": 2,
    "E": 2,
    "F": 2,
    "D": 2,
    "C": 2,
    "W": 2,
    "J": 2,
    "KV": 1,
    "G": 2,
}
OTHERWISE = {  # where the definition counts otherwise than what is really needed, or the simulation does not
    "a loop that reduces in every step",
    "a state read at any other position is complete",
    "scattered back",
}
LONG = {name: rank for name, example in EXAMPLES.items() for rank in example.passes if rank in ("m", "n") and name not in OTHERWISE}


@pytest.mark.parametrize("name", LONG)
def test_examples_of_the_definition(name: str) -> None:
    cascade = spec.loads(EXAMPLES[name].text("example"))
    sizes = {symbol: SMALL[symbol] for symbol in cascade.symbols}
    rank = LONG[name]
    mirrored = "backward" in name
    simulation = Simulation(cascade, rank, sizes)
    assert levels(cascade, rank).passes[rank] == (simulation.least() if mirrored else simulation.passes())
