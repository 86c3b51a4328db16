"""Registers: what a tile takes that is fetched value by value, and one that is scanned."""

from __future__ import annotations

from einsmith.einsum import spec
from einsmith.einsum.sizes import bind
from einsmith.kernels.aot import compile_module
from einsmith.kernels.emit import emit_module
from einsmith.mapper import gpu
from einsmith.mapper.precision import Precision
from einsmith.mapper.pressure import Pressure, temporaries
from einsmith.mapper.program import program
from einsmith.mapper.stages import plan_module

MIXED = """
name: scores-mixed-with-their-neighbours
ranks: {h: H, p: P, m: M, e: E, f: F, i: CQ, j: CK}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f], T: [h, i, j]}
sizes: {H: 4, P: 256, M: 256, E: 64, F: 64, CQ: 4, CK: 5}
cascade: |
  QK[h,p,m] = where(m <= p, sum[e](Q[h,p,e] * K[h,m,e]), 0)
  CV[h,p,m] = sum[i,j](where(p - i >= 0 and 0 <= m + CK//2 - j < M, T[h,i,j] * QK[h,p-i,m+CK//2-j], 0))
  S[h,p,m]  = where(m <= p, CV[h,p,m], -inf)
  G[h,p]    = max[m](S[h,p,m])
  N[h,p,m]  = exp(S[h,p,m] - G[h,p])
  D[h,p]    = sum[m](N[h,p,m])
  A[h,p,m]  = N[h,p,m] / D[h,p]
  O[h,p,f]  = A[h,p,m] * V[h,m,f]
outputs: [O]
"""


def test_values_with_an_address_of_their_own_leave_room_for_few() -> None:
    """Twenty neighbours of each score are too many beside a product: they are summed up by a kernel before. Nothing is spilled."""
    cascade = spec.loads(MIXED)
    planned = plan_module(cascade, gpu.load("h200"))
    summed = next(kernel for kernel in planned.kernels if "CV" in kernel.cascade.outputs)
    blocks, threads = summed.best.blocks, 32 * summed.best.warps
    assert blocks["p"] * blocks["m"] * blocks["ij0"] / threads <= 32
    assert compile_module(emit_module(planned), planned, cascade)["sm_90"].spill_bytes == 0


def test_addresses_are_counted_where_neighbours_are_not_known_to_lie_side_by_side() -> None:
    """The same window read at a row of its own, or by blocks of a row: of the second each value has its own address."""

    def registers(column: str) -> int:
        text = f"""
ranks: {{p: P, m: M, w: 16, f: F}}
inputs: {{X: [p, m], V: [m, f]}}
sizes: {{P: 256, M: 1024, F: 64}}
cascade: |
  S[p,m] = sum[w](where({column} < M, X[p,{column}], 0))
  Y[p,f] = S[p,m] * V[m,f]
outputs: [Y]
"""
        cascade = spec.loads(text)
        arranged = program(cascade, bind(cascade).extents)
        blocks = {"p": 16, "m0": 16, "w": 16, "f": 64}
        assert set(arranged.axes) == set(blocks)
        return Pressure(arranged, gpu.load("h200"), Precision("float16"), exact=False)(blocks, 4, 2).least

    assert registers("m//2 + w") > registers("m + w") + 64


def test_a_tile_that_is_scanned_is_there_three_times() -> None:
    """As it was, scanned by lanes for themselves, and with what comes before."""

    def tiles(operation: str) -> int:
        text = f"ranks: {{p: P, m: M}}\ninputs: {{X: [p, m]}}\ncascade: |\n  Y[p,m] = {operation}\noutputs: [Y]\n"
        arranged = program(spec.loads(text), {"p": 256, "m": 64})
        return max(temporaries(arranged, einsum) for einsum in arranged.cascade.einsums)

    assert tiles("2 * X[p,m]") == 1
    assert tiles("cumsum[m](X[p,m])") == 3
