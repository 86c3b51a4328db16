"""One shard, evaluated: a job in, a Parquet file as bytes out.

A mapped structure is evaluated in closed form for all its points at once (`batch`), and three points of it are compared with
`cost.model`; where they differ, or a mapping uses what has no closed form, `cost.model` is asked point by point. A point that
cannot be evaluated has the code and the text of its diagnostic, and no figures.

Columns: `status code diagnostic`, `latency_s cycles energy_pj edp traffic_bytes area_um2 fill_cycles buffer_need`,
`utilization.ARRAY`, `energy.COMPONENT`, `bound_by`, `lane_cycles` (useful), `peak_lanes_s`, `bandwidth`, `mapping_found`, `plan`.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...einsum.diagnostics import Diagnostic, EinsmithError
from .. import architecture, batch
from .. import mapping as mappings
from ..architecture import Architecture
from ..cost import Cost
from ..document import Document, reads
from ..mapping import Mapping

Rows = NDArray[np.int64]
_HEAD = ("latency_s", "cycles", "fill_cycles", "energy_pj", "edp", "traffic_bytes", "area_um2", "buffer_need")
_OTHERS = ("lane_cycles", "peak_lanes_s", "bandwidth", "kernels", "shared_bytes", "registers")
_PARTS = ("utilization.", "energy.")
TEXTS = ("status", "code", "diagnostic", "bound_by", "mapping_found", "plan")
AGREE = 1e-9
"""Relative difference up to which the closed form and the model count as equal."""


def known_figures() -> tuple[str, ...]:
    """Names of figures; NAME stands for an array or a component."""
    return (*_HEAD, *_OTHERS, *(f"{part}NAME" for part in _PARTS))


def is_figure(name: str) -> bool:
    """Whether results may have a number of that name."""
    return name in (*_HEAD, *_OTHERS) or name.startswith(_PARTS)


def evaluate(payload: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The result of a shard as a Parquet file, and a summary (`points`, `failed`)."""
    found = _Found(payload["count"])
    try:
        if payload["gpu"] is not None:
            _plans(payload, found)
        elif payload["search"]:
            _searches(payload, found)
        else:
            _models(payload, found)
    except EinsmithError as error:
        found.fail(np.flatnonzero(found.open), error.diagnostics[0])
    return _parquet(found), {"points": payload["count"], "failed": int((found.texts["status"] == "failed").sum())}


class _Found:
    """The columns as they fill."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.texts = {name: np.full(count, "", dtype=object) for name in TEXTS}
        self.numbers = {name: np.full(count, np.nan) for name in _HEAD}

    @property
    def open(self) -> NDArray[np.bool_]:
        return np.asarray(self.texts["status"] == "")

    def fail(self, rows: Rows, diagnostic: Diagnostic) -> None:
        self.texts["status"][rows] = "failed"
        self.texts["code"][rows] = diagnostic.code
        self.texts["diagnostic"][rows] = diagnostic.message
        for values in (*self.numbers.values(), *(self.texts[name] for name in ("bound_by", "mapping_found", "plan"))):
            values[rows] = np.nan if values.dtype == np.float64 else ""

    def put(self, name: str, rows: Rows, values: Any) -> None:
        self.numbers.setdefault(name, np.full(self.count, np.nan))[rows] = values


def _parquet(found: _Found) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(values.tolist(), pa.string()).dictionary_encode() for name, values in found.texts.items()}
    columns |= {name: pa.array(values) for name, values in found.numbers.items()}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _columns(payload: dict[str, Any], prefix: str) -> dict[str, NDArray[Any]]:
    return {n.removeprefix(prefix): np.array(values) for n, values in payload["columns"].items() if n.startswith(prefix)}


@functools.lru_cache(maxsize=64)
def cascade_of(text: str, name: str, rank: str | None) -> Any:
    """The cascade of a spec, in its form with the fewest passes over a rank if there is one."""
    from ...einsum.spec import loads

    cascade = loads(text, name)
    if rank is None:
        return cascade
    from ...einsum.rewrite.derive import derive

    return derive(cascade, rank).cascade


@functools.lru_cache(maxsize=64)
def _architecture(text: str, name: str, settings: tuple[str, ...]) -> Architecture:
    return architecture.loads(text, name, settings)


def settings_of(values: dict[str, Any]) -> tuple[str, ...]:
    """Numbers of an architecture as `--set` takes them."""
    return tuple(f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in values.items())


def _each(columns: dict[str, NDArray[Any]], count: int) -> list[tuple[dict[str, Any], Rows]]:
    """The distinct rows of some columns, with where they are."""
    if not columns:
        return [({}, np.arange(count))]
    stacked = np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)
    distinct, of = np.unique(stacked, axis=0, return_inverse=True)
    order = np.argsort(of.reshape(-1), kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(of.reshape(-1)))[:-1])
    return [
        ({name: number(value) for name, value in zip(columns, row, strict=True)}, rows)
        for row, rows in zip(distinct.tolist(), pieces, strict=True)
    ]


def number(value: float) -> int | float:
    """A whole number where it is one."""
    return int(value) if float(value).is_integer() else float(value)


# --- mapped points ----------------------------------------------------------------------------------------------------


def _models(payload: dict[str, Any], found: _Found) -> None:
    cascade = cascade_of(*payload["spec"][::-1], payload["derive"])
    name, text = payload["arch"]
    plain = _architecture(text, name, ())
    arch = _architecture(text, name, settings_of(sides(plain, payload["settings"])))
    document = reads(payload["mapping"][1], payload["mapping"][0])
    deciding = {
        path: np.array(values)
        for path, values in payload["columns"].items()
        if path.startswith(("size.", *named_hardware(document, arch)))
    }
    same: dict[str, list[tuple[Mapping, Rows]]] = {}
    for chosen, rows in _each(deciding, payload["count"]):
        sizes = {path[5:]: value for path, value in chosen.items() if path.startswith("size.")}
        try:
            mapping = mappings.settled_for(document, cascade, sizes, payload["params"], capacities(arch, chosen))
        except EinsmithError as error:
            found.fail(rows, error.diagnostics[0])
            continue
        same.setdefault(tiled(mapping, ()).model_dump_json(), []).append((mapping, rows))
    for pieces in same.values():
        rows = np.sort(np.concatenate([mine for _, mine in pieces]))
        try:
            _structure(payload, cascade, arch, pieces, rows, found)
        except EinsmithError as error:
            found.fail(rows, error.diagnostics[0])
        except Exception as error:
            found.fail(rows, Diagnostic("E900", f"einsmith itself failed: {type(error).__name__}: {error}"))


def named_hardware(document: Document, arch: Architecture) -> list[str]:
    """The numbers of an architecture that a mapping's expressions name, as points set them."""
    text = document.source.text
    return [
        *(f"arch.{level}.size" for level in arch.memory if f"{level}_bytes" in text),
        *(f"arch.{array}.side" for array in arch.arrays if f"{array}_side_" in text),
    ]


def capacities(arch: Architecture, chosen: dict[str, Any]) -> Architecture:
    """The architecture with the capacities and sides that points set: what the expressions of a mapping may name."""
    memory = {
        name: level.model_copy(update={"size": chosen.get(f"arch.{name}.size", level.size)}) for name, level in arch.memory.items()
    }
    arrays = {
        name: array.model_copy(
            update={
                "side": [
                    int(chosen.get(f"arch.{name}.side.{axis}", chosen.get(f"arch.{name}.side", side)))
                    for axis, side in enumerate(array.side)
                ]
            }
        )
        for name, array in arch.arrays.items()
    }
    return arch.model_copy(update={"memory": memory, "arrays": arrays})


def tiles_of(mapping: Mapping) -> dict[str, int]:
    """The tile of every loop and the tiles in flight, as a batch names them, loop by loop."""
    found = {}
    for number, group in enumerate(mapping.groups, 1):
        for axis, loop in enumerate(group.loops):
            found[f"{number}.{loop.rank}.{sum(other.rank == loop.rank for other in group.loops[:axis])}"] = loop.tile
        found[f"{number}.in_flight"] = group.in_flight
    return found


def tiled(mapping: Mapping, tiles: Sequence[int]) -> Mapping:
    """The mapping with other numbers for those of `tiles_of`; 1 where there are no more."""
    left = iter(tiles)
    groups = []
    for group in mapping.groups:
        loops = tuple(loop.model_copy(update={"tile": next(left, 1)}) for loop in group.loops)
        groups.append(group.model_copy(update={"loops": loops, "in_flight": next(left, 1)}))
    return mapping.model_copy(update={"groups": tuple(groups)})


def _structure(
    payload: dict[str, Any], cascade: Any, arch: Architecture, pieces: list[tuple[Mapping, Rows]], rows: Rows, found: _Found
) -> None:
    """All points of mappings that differ in nothing but their tiles."""
    sizes = {name: values[rows] for name, values in _columns(payload, "size.").items()}
    numbers = {name: values[rows] for name, values in _columns(payload, "arch.").items()}
    compiled = batch.compile(cascade, arch, pieces[0][0], params=payload["params"])
    tiles: dict[str, Any] = {}
    if len(pieces) > 1:
        each = [tiles_of(mapping) for mapping, _ in pieces]
        where = np.concatenate([np.full(len(mine), at) for at, (_, mine) in enumerate(pieces)])
        where = where[np.argsort(np.concatenate([mine for _, mine in pieces]))]
        tiles = {name: np.array([one[name] for one in each])[where] for name in each[0] if len({one[name] for one in each}) > 1}
    tiles |= {name: values[rows] for name, values in _columns(payload, "tile.").items()}
    results = compiled(sizes, numbers, tiles, fast=False)
    good = np.flatnonzero(results.valid)
    if not _agrees(results, compiled, good):
        _exactly(compiled, results, rows, found)
        return
    found.texts["status"][rows[good]] = "done"
    for name in _HEAD:
        found.put(name, rows[good], getattr(results, name)[good])
    useful = np.zeros(len(rows))
    for array, share in results.utilization.items():
        found.put(f"utilization.{array}", rows[good], share[good])
        useful += share * results.cycles * _lanes(results, arch, array)
    for part, energy in results.energy_parts.items():
        found.put(f"energy.{part}", rows[good], energy[good])
    found.put("lane_cycles", rows[good], useful[good])
    clock = np.broadcast_to(np.asarray(results.points.hardware("clock_hz"), dtype=np.float64), len(rows))
    lanes = np.sum([_lanes(results, arch, array) for array in arch.arrays], axis=0)
    found.put("peak_lanes_s", rows[good], (lanes * clock)[good])
    bandwidth = np.asarray(results.points.hardware(f"{arch.backing[0]}.bandwidth"), dtype=np.float64)
    found.put("bandwidth", rows[good], np.broadcast_to(bandwidth, len(rows))[good])
    found.texts["bound_by"][rows[good]] = _bound(results)[good]
    _refusals(results, rows, np.flatnonzero(~results.valid), found)


def _lanes(results: batch.Results, arch: Architecture, name: str) -> NDArray[np.float64]:
    sides = [results.points.hardware(f"{name}.side.{axis}") for axis in range(len(arch.arrays[name].side))]
    product = np.asarray(arch.instances(name), dtype=np.float64)
    for side in sides:
        product = product * side
    return np.asarray(np.broadcast_to(product, len(results)))


def _bound(results: batch.Results) -> NDArray[Any]:
    """What bounds the group that takes longest."""
    cycles = np.stack([np.nan_to_num(group["cycles"]) for group in results.groups])
    names = np.array([results.bound_by(group) for group in range(len(results.groups))], dtype=object)
    return np.asarray(names[cycles.argmax(axis=0), np.arange(len(results))])


def _agrees(results: batch.Results, compiled: batch.Batch, good: Rows) -> bool:
    """Whether the closed form gives what the model gives, at three of the valid points."""
    for point in dict.fromkeys(good[[0, len(good) // 2, -1]].tolist() if len(good) else []):
        try:
            cost = compiled.model(results.points, point)
        except EinsmithError:
            return False
        pairs = [
            (cost.latency_s, results.latency_s),
            (cost.energy_pj, results.energy_pj),
            (cost.traffic_bytes, results.traffic_bytes),
        ]
        if any(abs(exact - values[point]) > AGREE * abs(exact) for exact, values in pairs):
            return False
    return True


def _exactly(compiled: batch.Batch, results: batch.Results, rows: Rows, found: _Found) -> None:
    """Point by point."""
    for point, row in enumerate(rows):
        try:
            _put(found, int(row), compiled.model(results.points, point))
        except EinsmithError as error:
            found.fail(np.array([row]), error.diagnostics[0])


def _put(found: _Found, row: int, cost: Cost) -> None:
    at = np.array([row])
    found.texts["status"][row] = "done"
    for name in _HEAD[:-1]:
        found.put(name, at, getattr(cost, name))
    found.put("buffer_need", at, max(group.buffer_need for group in cost.groups))
    lanes = {name: array.lanes * cost.arch.instances(name) for name, array in cost.arch.arrays.items()}
    for name, share in cost.utilization.items():
        found.put(f"utilization.{name}", at, share)
    for name, energy in cost.energy_parts.items():
        found.put(f"energy.{name}", at, energy)
    found.put("lane_cycles", at, sum(share * cost.cycles * lanes[name] for name, share in cost.utilization.items()))
    found.put("peak_lanes_s", at, sum(lanes.values()) * cost.arch.clock_hz)
    found.put("bandwidth", at, cost.arch.backing[1].bandwidth or np.inf)
    found.texts["bound_by"][row] = max(cost.groups, key=lambda group: group.timing.cycles).timing.bound_by


def _refusals(results: batch.Results, rows: Rows, bad: Rows, found: _Found) -> None:
    """Why points are not valid: capacity in numbers for each; other reasons are asked for once for points of equal sizes and
    tiles."""
    points, arch = results.points, results.batch.arch
    left = set(bad.tolist())
    limits = [
        (f"{name}.registers.words", f"lanes {name}", "E521", f"words of registers in each lane of `{name}`") for name in arch.arrays
    ]
    limits += [(f"{name}.size", "need", "E520", f"bytes of `{name}`") for name in arch.on_chip[:1]]
    for number, group in enumerate(results.groups, 1):
        for path, what, code, where in limits:
            have = np.broadcast_to(np.asarray(points.hardware(path), dtype=np.float64), len(results))
            need = group[what]
            over = [point for point in bad[need[bad] > have[bad]].tolist() if point in left and not points.broken[point]]
            texts = [f"group {number} needs {need[at]:,.0f} {where}, which has {have[at]:,.0f}" for at in over]
            found.texts["status"][rows[over]], found.texts["code"][rows[over]] = "failed", code
            found.texts["diagnostic"][rows[over]] = texts
            left.difference_update(over)
    known: dict[Any, Diagnostic] = {}
    for point in sorted(left):
        fixed = [float(values[point]) for values in points.tiles.values() if values.ndim]
        every = [float(values[point]) for values in points.arch.values() if values.ndim] if points.broken[point] else []
        key = int(points.of[point]), *fixed, *every
        if key not in known:
            known[key] = results.why(point) or Diagnostic("E520", "does not fit")
        found.fail(rows[[point]], known[key])


# --- searched and planned points --------------------------------------------------------------------------------------


def _searches(payload: dict[str, Any], found: _Found) -> None:
    from ..search import search

    cascade = cascade_of(*payload["spec"][::-1], payload["derive"])
    name, text = payload["arch"]
    for row in range(payload["count"]):
        numbers = {path: number(values[row]) for path, values in _columns(payload, "arch.").items()}
        try:
            plain = _architecture(text, name, ())
            arch = _architecture(text, name, settings_of(sides(plain, {**payload["settings"], **numbers})))
            sizes = {symbol: int(values[row]) for symbol, values in _columns(payload, "size.").items()}
            best = search(cascade, arch, sizes, payload["params"], objective=payload["objective"])
        except EinsmithError as error:
            found.fail(np.array([row]), error.diagnostics[0])
            continue
        _put(found, row, best.cost)
        found.texts["mapping_found"][row] = best.mapping.as_yaml()


def sides(arch: Architecture, numbers: dict[str, Any]) -> dict[str, Any]:
    """`array.side` given as one number for all sides, and `array.side.0` for one, as the list of sides that `--set` takes."""
    found = dict(numbers)
    for name, array in arch.arrays.items():
        whole, each = f"{name}.side", [f"{name}.side.{axis}" for axis in range(len(array.side))]
        if isinstance(found.get(whole), int | float):
            found[whole] = [found[whole]] * len(each)
        if any(path in found for path in each):
            before = found.get(whole, array.side)
            found[whole] = [found.pop(path, side) for path, side in zip(each, before, strict=True)]
    return found


def _plans(payload: dict[str, Any], found: _Found) -> None:
    from ..gpu import loads
    from ..stages import plan_module

    name, text = payload["gpu"]
    gpu, cascade = loads(text, name), cascade_of(*payload["spec"][::-1], payload["derive"])
    for row in range(payload["count"]):
        sizes = {symbol: int(values[row]) for symbol, values in _columns(payload, "size.").items()}
        at = np.array([row])
        try:
            best = plan_module(cascade, gpu, sizes, payload["params"], dtype=payload["dtype"], keep=1)
        except EinsmithError as error:
            found.fail(at, error.diagnostics[0])
            continue
        slowest = max(best.kernels, key=lambda kernel: kernel.best.predicted_s).best
        found.texts["status"][row] = "done"
        found.texts["bound_by"][row] = slowest.bound
        found.texts["plan"][row] = json.dumps(best.as_json()["plan"])
        found.put("latency_s", at, best.predicted_s)
        found.put("kernels", at, len(best.kernels))
        found.put("shared_bytes", at, max(kernel.best.shared_bytes for kernel in best.kernels))
        found.put("registers", at, max(kernel.best.registers for kernel in best.kernels))
