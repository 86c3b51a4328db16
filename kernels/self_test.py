"""The test that a generated module carries: `python KERNEL.py`.

In: the host part of a module. Out: text: inputs for the cases in `CASES`, and `test`, which compares the kernel with
`reference` in float64. `einsmith test` does more: it compares with the interpreter, on more cases.
"""

from __future__ import annotations

from ..einsum.cascade import Access, accesses
from ..mapper.precision import WIDER
from .host import Host
from .scalars import python

TYPES = '[torch.float16, torch.bfloat16, torch.float32] if device == "cuda" else [torch.float32]'
"""Types of inputs that a module is tested with, as its test has it."""
TEST = '''
def exact(**inputs):
    """`reference` in float64, coordinates and constants too."""
    torch.set_default_dtype(torch.float64)
    try:
        return reference(**{n: x.double() if torch.is_tensor(x) and x.is_floating_point() else x for n, x in inputs.items()})
    finally:
        torch.set_default_dtype(torch.float32)


def test():
    """The kernel against `reference` in float64; its error may be twice that of `reference` in the type of the inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = [torch.float16, torch.bfloat16, torch.float32] if device == "cuda" else [torch.float32]
    failed = 0
    for case in CASES:
        for dtype in types:
            inputs = _inputs(case, dtype, device)
            wide, plain = exact(**inputs), reference(**inputs)
            outputs = run(**inputs, out=lambda made: [x.fill_(math.nan) for x in made.values() if x.is_floating_point()])
            for name, want in wide.items():
                error = (outputs[name].double() - want.double()).abs().max().item() if want.numel() else 0.0
                allowed = 2 * (plain[name].double() - want.double()).abs().max().item() if want.numel() else 0.0
                size = want.double().abs().max().item() if want.numel() else 0.0
                allowed += 8 * torch.finfo(dtype).eps * max(size, torch.finfo(dtype).tiny)
                good = error <= allowed
                failed += not good
                print(f"{'ok  ' if good else 'FAIL'} {name} {case} {str(dtype)[6:]}: error {error:.2e}, allowed {allowed:.2e}")
    return failed


if __name__ == "__main__":
    raise SystemExit(1 if test() else 0)
'''


class SelfTest:
    """Writes the test."""

    def __init__(self, host: Host) -> None:
        self.host, self.textbook, self.spelled = host, host.textbook, host.spelled

    def text(self) -> str:
        shapes = []
        for tensor in self.textbook.inputs:
            extents = ", ".join(python(self.textbook.rank(r).extent, self.spelled) for r in tensor.ranks)
            shapes.append((tensor, f"({extents}{',' if len(tensor.ranks) == 1 else ''})"))
        lines = [
            "def _inputs(case, dtype, device, deviation=1.0):",
            '    """Random inputs of one case."""',
            "    generator = torch.Generator().manual_seed(0)",
        ]
        for name in self.textbook.symbols:
            lines.append(f'    {self.spelled(name)} = case["{name}"]')
        items = []
        for tensor, shape in shapes:
            if tensor.dtype == "float":
                items.append(
                    f"{self.spelled(tensor.name)}=(deviation * torch.randn({shape}, generator=generator)).to(device, dtype)"
                )
            else:
                top = self._index_top(tensor.name)
                kind = "torch.bool" if tensor.dtype == "bool" else "torch.int32"
                items.append(
                    f"{self.spelled(tensor.name)}=torch.randint(0, {top}, {shape}, generator=generator).to(device, {kind})"
                )
        given = [
            k.split("=")[0] for k in self.host.keywords() if k.split("=")[0] in {self.spelled(n) for n in self.host.unknown_sizes()}
        ]
        items += [f"{name}={name}" for name in given]
        lines.append(f"    return dict({', '.join(items)})")
        test = TEST.strip("\n")
        if self.host.precision.dtype in WIDER:
            types = f"[torch.{self.host.precision.dtype}]"
            test = test.replace(TYPES, types).replace(
                "torch.finfo(dtype)", f"torch.finfo(torch.{self.host.precision.computed_type})"
            )
        return "\n".join(lines) + "\n\n\n" + test

    def _index_top(self, tensor: str) -> str:
        """One more than the greatest value an integer input may have: the extent that it indexes."""
        if self.textbook.tensor(tensor).dtype == "bool":
            return "2"
        tops = []
        for einsum in self.textbook.einsums:
            for access in accesses(einsum.body):
                for rank, index in zip(self.textbook.tensor(access.tensor).ranks, access.indices, strict=True):
                    if isinstance(index, Access) and index.tensor == tensor:
                        tops.append(python(self.textbook.rank(rank).extent, self.spelled))
        return f"max(1, min({', '.join(tops)}, 2**31))" if tops else "4"
