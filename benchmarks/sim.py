"""How fast mappings are simulated, and how the time grows.

python benchmarks/sim.py [--largest TOKENS]

Prints, for FuseMax's published binding at growing lengths: tile-level tasks, seconds, tasks a second with the event run and
with the recurrence (both include making the tasks), and then the seconds of an extrapolation from the steady state up to 1M
tokens. Times are processor time of this machine, single runs. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import time

from einsmith.einsum import spec
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import cost
from einsmith.mapper.mapping import Mapping
from einsmith.mapper.nest import place
from einsmith.sim import events, recurrence
from einsmith.sim.simulate import simulate
from einsmith.sim.tasks import Tasks

CASCADE = EXAMPLES / "attention" / "fusemax.yaml"


def binding(length: int) -> Mapping:
    text = mapping.load("fusemax-binding").as_yaml()
    return mapping.loads(text.replace("tile: 1024", f"tile: {min(length, 4096)}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=2**14, metavar="TOKENS", help="of the runs without extrapolation")
    options = parser.parse_args()
    cascade, arch = spec.load(CASCADE), architecture.load("fusemax")
    print(f"{'tokens':>8} {'tiles':>8} {'tasks':>8} {'making s':>9} {'events s':>9} {'tasks/s':>9} {'recur. s':>9} {'tasks/s':>9}")
    length = 2**10
    while length <= options.largest:
        sizes = {"B": 1, "H": 1, "P": length, "M": length, "E": 64, "F": 64}
        placed = place(cascade, arch, binding(length), sizes, {"scale": 1})
        nest = placed.nests[0]
        interval = cost(placed).groups[0].timing.cycles / nest.tiles
        start = time.process_time()
        tasks = Tasks(nest, interval)
        for index in tasks.tiles():
            tasks.tile(index)
        made = time.process_time() - start
        seconds = []
        for way in (events.run, recurrence.run):
            start = time.process_time()
            way(tasks.made)
            seconds.append(time.process_time() - start)
        count = len(tasks.made)
        per = [count / (made + second) for second in seconds]
        print(
            f"{length:8} {nest.tiles:8} {count:8} {made:9.2f} {seconds[0]:9.2f} {per[0]:9,.0f} {seconds[1]:9.2f} {per[1]:9,.0f}",
            flush=True,
        )
        length *= 2
    print()
    print(f"{'tokens':>8} {'tiles':>15} {'seconds':>8}  how      cycles beyond the model's")
    for length in (2**14, 2**16, 2**18, 2**20):
        sizes = {"B": 64, "H": 12, "P": length, "M": length, "E": 64, "F": 64}
        start = time.process_time()
        run = simulate(cascade, arch, binding(length), sizes, {"scale": 1})
        seconds_taken = time.process_time() - start
        group = run.groups[0]
        more = run.cycles / run.cost.cycles - 1
        print(f"{length:8} {group.nest.tiles:15,} {seconds_taken:8.2f}  {group.how:8} {more:+.6%}", flush=True)


if __name__ == "__main__":
    main()
