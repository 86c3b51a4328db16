"""Traffic with memory and orders of launches, against a cache simulated instance by instance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.sizes import bind
from einsmith.mapper import gpu
from einsmith.mapper.one_pass import one_pass
from einsmith.mapper.plan import plan
from einsmith.mapper.products import PLAIN
from einsmith.mapper.program import program
from einsmith.mapper.traffic import Order, Traffics

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
PRODUCT = """
name: product
ranks: {p: P, f: F, e: {extent: E, split: [e1, e0], tile: E0, count: E1}}
inputs: {X: [p, e], W: [e, f]}
sizes: {E0: 32}
cascade: |
  Y[p,f,0]    = 0
  Y[p,f,e1+1] = Y[p,f,e1] + sum[e0](X[p,e1*E0+e0] * W[e1*E0+e0,f])
  Z[p,f]      = Y[p,f,E1]
outputs: [Z]
"""
SIZES = {"P": 256, "F": 384, "E": 64}
BLOCKS = {"p": 32, "f": 32, "e0": 32}
X_TILE = W_TILE = 2 * 32 * 64
"""Bytes that one instance reads of each."""


def with_cache(size: int) -> gpu.Gpu:
    h200 = gpu.load("h200")
    return h200.model_copy(update={"cache": h200.cache.model_copy(update={"size": size})})


def traffics(size: int, text: str = PRODUCT, sizes: dict[str, int] = SIZES) -> Traffics:
    cascade = spec.loads(text)
    extents = bind(cascade, sizes).extents
    return Traffics(program(cascade, extents), with_cache(size), PLAIN, extents)


def places(order: Order, counts: dict[str, int]) -> Iterator[dict[str, int]]:
    """Coordinates of the instances one after another, as kernels find them from their number."""
    first, second = order.ranks
    for pid in range(counts[first] * counts[second]):
        if order.group == 1:
            yield {first: pid % counts[first], second: pid // counts[first]}
            continue
        start = pid // (order.group * counts[second]) * order.group
        high = min(counts[first] - start, order.group)
        within = pid % (order.group * counts[second])
        yield {first: start + within % high, second: within // high}


def simulated(order: Order, at_once: int, size: int) -> int:
    """Bytes of X and W from memory: instances in waves, tiles in a cache that forgets what was not used for longest."""
    counts = {"p": SIZES["P"] // 32, "f": SIZES["F"] // 32}
    cache: OrderedDict[tuple[str, int], None] = OrderedDict()
    missed = 0
    every = list(places(order, counts))
    for start in range(0, len(every), at_once):
        wave = every[start : start + at_once]
        for key in dict.fromkeys(key for at in wave for key in (("X", at["p"]), ("W", at["f"]))):
            missed += key not in cache
            cache[key] = None
            cache.move_to_end(key)
        while len(cache) * X_TILE > size:
            cache.popitem(last=False)
    return missed * X_TILE


LONG = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
ORDERS = [Order(("p", "f")), Order(("f", "p")), Order(("p", "f"), 4), Order(("f", "p"), 4)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
@pytest.mark.parametrize("tiles", [0, 1000])
def test_traffic_is_that_of_a_simulated_cache(order: Order, at_once: int, tiles: int) -> None:
    """Without a cache every wave asks for its tiles; with one that holds everything each tile comes once."""
    size = tiles * X_TILE
    written = 2 * SIZES["P"] * SIZES["F"]
    found = traffics(size)(BLOCKS, [(2, 2)] * 3, at_once, [order])
    assert found.from_memory - written == simulated(order, at_once, size)


@pytest.mark.parametrize("order", ORDERS[:2], ids=str)
def test_a_rank_that_fits_the_cache_is_read_once(order: Order) -> None:
    """The inner rank's tiles are used again for the next coordinate of the outer one if they are all still there."""
    counts = {"p": 8, "f": 12}
    inner, outer = order.ranks
    # one instance at a time needs the tiles of the inner rank and one of the outer; the result counts as touched, too
    enough = (counts[inner] + 2) * X_TILE + counts[inner] * 2 * 32 * 32
    written = 2 * SIZES["P"] * SIZES["F"]
    fits = traffics(enough)(BLOCKS, [(2, 2)] * 3, 1, [order]).from_memory - written
    short = traffics(enough // 2)(BLOCKS, [(2, 2)] * 3, 1, [order]).from_memory - written
    assert fits == simulated(order, 1, enough) == (counts[inner] + counts[outer]) * X_TILE
    assert short == simulated(order, 1, enough // 2) == (counts[inner] * counts[outer] + counts[outer]) * X_TILE


def test_the_order_with_least_traffic_is_taken() -> None:
    """Groups in both directions, where neither matrix fits the cache."""
    big = {"P": 8192, "F": 8192, "E": 4096}
    found = traffics(16 << 20, PRODUCT, big)({"p": 128, "f": 128, "e0": 32}, [(128, 128)] * 3, 132)
    plain = [
        traffics(16 << 20, PRODUCT, big)({"p": 128, "f": 128, "e0": 32}, [(128, 128)] * 3, 132, [order]).from_memory
        for order in ORDERS[:2]
    ]
    assert found.order.group > 1
    assert found.from_memory < 0.6 * min(plain)


def test_what_is_read_once_has_the_usual_order() -> None:
    cascade = spec.loads(PRODUCT)
    assert plan(cascade, gpu.load("h200"), SIZES).best.order == Order(("f", "p"))


def through(blocks: dict[str, int], sizes: dict[str, int], text: str = PRODUCT) -> float:
    """Bytes through the cache for one walk over `e`."""
    steps = -(-sizes["E"] // blocks["e0"])
    return traffics(1 << 30, text, sizes)(blocks, [(steps, steps)] * 3, 1).through_cache


def test_short_runs_take_whole_sectors() -> None:
    """Sectors of 32 bytes: runs of 4 values along e take four times their bytes, of 8 along f twice."""
    p, f, e = SIZES["P"], SIZES["F"], SIZES["E"]
    whole = 2 * (p * e * (f // 32) + e * f * (p // 32) + p * f)
    assert through({"p": 32, "f": 32, "e0": 32}, SIZES) == whole
    short = 2 * (4 * p * e * (f // 8) + 2 * e * f * (p // 32) + 2 * p * f)
    assert through({"p": 32, "f": 8, "e0": 4}, SIZES) == short


def test_complete_rows_follow_one_another() -> None:
    """Rows of 8 values that a tile holds whole are one run; rows of which it holds every other value are not."""
    sizes = {**SIZES, "F": 8}
    p, f, e = SIZES["P"], 8, SIZES["E"]
    assert through({"p": 32, "f": 8, "e0": 32}, sizes) == 2 * (p * e + e * f * (p // 32) + p * f)
    strided = PRODUCT.replace("W: [e, f]", "W: [e, g]").replace("f: F,", "f: F, g: 2*F,").replace("E0+e0,f]", "E0+e0,2*f]")
    assert through({"p": 32, "f": 8, "e0": 32}, sizes, strided) == 2 * (p * e + 16 * e * f * (p // 32) + p * f)


@pytest.mark.parametrize(
    ("index", "extent", "sectors"),
    [
        ("f", "F", 1),
        ("f - e1*E0 - e0 + E", "E+F", 1),  # neighbours along f and along e
        ("e1*E0 + e0 - f + F", "E+F", 1),
        ("(f + 5) % F", "F", 1),
        ("clamp(f - 3, 0, F - 1)", "F", 1),
        ("f//2", "F", 1),
        ("2*f", "2*F", 16),
        ("(3*f) % F", "F", 16),
        ("I[f]", "F", 16),
    ],
)
def test_runs_along_indices_that_are_computed(index: str, extent: str, sectors: int) -> None:
    """Neighbours along an axis are neighbours in memory, or the same, in sums with it, remainders and bounds; not in multiples."""
    text = f"""
name: t
ranks: {{p: P, f: F, g: "{extent}", e: {{extent: E, split: [e1, e0], tile: E0, count: E1}}}}
inputs: {{X: [p, e], W: [e, g], I: {{ranks: [f], dtype: int}}}}
sizes: {{E0: 32}}
cascade: |
  Y[p,f,0]    = 0
  Y[p,f,e1+1] = Y[p,f,e1] + sum[e0](X[p,e1*E0+e0] * W[e1*E0+e0,{index}])
  Z[p,f]      = Y[p,f,E1]
outputs: [Z]
"""
    found = traffics(1 << 30, text)
    (tile,) = (tile for tile in found.reads if isinstance(tile.key, tuple) and tile.key[0] == "W")
    assert found._sectors(tile, BLOCKS) == sectors


def test_of_what_is_gathered_only_that_counts() -> None:
    """A pool of pages that is ten times as large takes no longer to read as many pages from."""
    text = """
name: pages
ranks: {b: B, h: H, m: C*S, c: C, n: N, s: S, f: F}
inputs: {W: [b, h, m], V: [n, s, f], T: {ranks: [b, c], dtype: int}}
cascade: |
  Y[b,h,f] = W[b,h,m] * V[T[b,m//S],m%S,f]
outputs: [Y]
"""
    sizes = {"B": 64, "H": 16, "C": 256, "S": 16, "F": 128}
    words = 64 * 4096 * (128 + 16)  # of the pages, and of W
    small, large = (plan(spec.loads(text), gpu.load("h100"), {**sizes, "N": n}).best for n in (20_000, 200_000))
    assert large.predicted_s == small.predicted_s
    assert small.parts["memory"] == pytest.approx(2 * words / 3.35e12, rel=0.1)


def test_tiles_with_most_steps_are_launched_first() -> None:
    """Under a causal mask the last rows have most steps: the first instances take them."""
    causal = plan(one_pass(spec.load(ATTENTION / "softmax-causal.yaml"), LONG).cascade, gpu.load("h200"), LONG)
    assert causal.best.order is not None
    assert causal.best.order.heavy_first == {"p"}
    assert "p (from the end), then h, then b" in str(causal)
    dense = plan(one_pass(spec.load(ATTENTION / "softmax.yaml"), LONG).cascade, gpu.load("h200"), LONG)
    assert dense.best.order is not None
    assert not dense.best.order.heavy_first


def test_no_time_is_shorter_than_that_of_the_longest_instance() -> None:
    """One head of causal attention leaves most multiprocessors idle: the tile with all steps decides, not the mean."""
    sizes, h200 = {**LONG, "B": 1, "H": 1}, gpu.load("h200")
    found = plan(one_pass(spec.load(ATTENTION / "softmax-causal.yaml"), sizes).cascade, h200, sizes, keep=1000)
    some = [one for one in found.candidates if one.blocks["p"] in (64, 128)]
    assert len(some) > 5
    for one in some:  # 64 or 32 tiles: at most one on each multiprocessor
        all_keys = 2 * 2 * one.blocks["p"] * 4096 * 128
        assert one.parts["matrix units"] == pytest.approx(all_keys * h200.multiprocessors.count / 790e12)
