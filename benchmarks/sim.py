"""How fast mappings are simulated, and how the time grows.

python benchmarks/sim.py [--largest TOKENS]

Prints, for FuseMax's published binding at growing lengths: tile-level tasks, seconds to make them, and tasks a second with the
event run and with the recurrence (making included), by 36K tokens for 20 thousand tiles of eleven tasks each. Then the seconds of
extrapolations from the steady state up to 1M tokens of BERT, for this binding and for the published mappings of the other
configurations. Times are processor time of this machine, single runs. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import platform
import time
from datetime import date
from importlib.metadata import version

from einsmith.einsum import spec
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import cost
from einsmith.mapper.mapping import Mapping
from einsmith.mapper.nest import place
from einsmith.sim import events, recurrence
from einsmith.sim.machine import Machine
from einsmith.sim.program import Program
from einsmith.sim.simulate import simulate

LENGTHS = (2**10, 2**11, 2**12, 2**13, 2**14, 9 * 2**12)
CONFIGS = {
    "unfused": ("softmax", "flat"),
    "flat": ("softmax", "flat"),
    "cascade": ("fusemax", "flat"),
    "arch": ("fusemax", "fusemax"),
}
BERT = {"B": 64, "H": 12, "E": 64, "F": 64}


def binding(length: int) -> Mapping:
    text = mapping.load("fusemax-binding").as_yaml()
    return mapping.loads(text.replace("tile: 1024", f"tile: {min(length, 4096)}"))


def single(length: int) -> None:
    """One head of one sequence, every tile."""
    cascade, arch = spec.load(EXAMPLES / "attention" / "fusemax.yaml"), architecture.load("fusemax")
    sizes = {"B": 1, "H": 1, "P": length, "M": length, "E": 64, "F": 64}
    placed = place(cascade, arch, binding(length), sizes, {"scale": 1})
    program = Program(placed.nests, Machine(arch), cost(placed).groups[0].timing.cycles)
    start = time.process_time()
    made = program.make()
    making = time.process_time() - start
    seconds = []
    for way in (events.run, recurrence.run):
        start = time.process_time()
        way(made.tasks, program.machine.rank)
        seconds.append(time.process_time() - start)
    count = len(made.tasks)
    per = [count / (making + second) for second in seconds]
    print(
        f"{length:8} {program.tiles:8} {count:8} {making:9.2f} {seconds[0]:9.2f} {per[0]:9,.0f} {seconds[1]:9.2f} {per[1]:9,.0f}",
        flush=True,
    )


def steady(length: int, config: str) -> None:
    """All of BERT."""
    name, arch = CONFIGS.get(config, ("fusemax", "fusemax"))
    cascade, machine, sizes = (
        spec.load(EXAMPLES / "attention" / f"{name}.yaml"),
        architecture.load(arch),
        {**BERT, "P": length, "M": length},
    )
    how = binding(length) if config == "binding" else mapping.load_for(f"published-{config}", cascade, sizes, {"scale": 1}, machine)
    start = time.process_time()
    run = simulate(cascade, machine, how, sizes, {"scale": 1})
    seconds = time.process_time() - start
    tiles = sum(group.tiles for group in run.groups)
    extrapolated = "/".join(dict.fromkeys(group.how for group in run.groups))
    print(f"{length:8} {config:8} {tiles:15,} {seconds:8.2f}  {extrapolated:8} {run.cycles / run.cost.cycles - 1:+.6%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=LENGTHS[-1], metavar="TOKENS", help="of the runs without extrapolation")
    options = parser.parse_args()
    print(f"einsmith simulator, {date.today()}, Python {platform.python_version()}, simpy {version('simpy')}, {platform.machine()}")
    print(f"{'tokens':>8} {'tiles':>8} {'tasks':>8} {'making s':>9} {'events s':>9} {'tasks/s':>9} {'recur. s':>9} {'tasks/s':>9}")
    for length in LENGTHS:
        if length <= options.largest:
            single(length)
    print(f"\n{'tokens':>8} {'mapping':8} {'tiles':>15} {'seconds':>8}  how      cycles beyond the model's")
    for length in (2**14, 2**16, 2**18, 2**20):
        steady(length, "binding")
    for config in CONFIGS:
        steady(2**20, config)


if __name__ == "__main__":
    main()
