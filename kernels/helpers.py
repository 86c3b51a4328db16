"""Device functions that generated modules bring along: what Triton lacks, or does otherwise than the language.

`SOURCES[name]` is the text of a helper, `NEEDS` the helpers that it calls. They use only what Triton's interpreter has too.
"""

from __future__ import annotations

from collections.abc import Iterable

SOURCES: dict[str, str] = {
    "_minus": '''
@triton.jit
def _minus(a, b):
    """a - b, where -inf - (-inf) is -inf: a masked score stays masked."""
    return tl.where(a == float("-inf"), float("-inf"), a - b)
''',
    "_over": '''
@triton.jit
def _over(a, b):
    """a / b, where 0 / 0 is 0: a row without any position gives 0."""
    return tl.where(a == 0, tl.where(b == 0, 0.0, a / b), a / b)
''',
    "_floor_div": '''
@triton.jit
def _floor_div(a, b):
    """Whole quotient rounded down (Triton's // rounds towards zero)."""
    q = a // b
    return tl.where((a - q * b != 0) & ((a < 0) != (b < 0)), q - 1, q)
''',
    "_floor_mod": '''
@triton.jit
def _floor_mod(a, b):
    """What is left of a by the quotient rounded down; has the sign of b."""
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
''',
    "_floor_div_float": '''
@triton.jit
def _floor_div_float(a, b):
    """Quotient rounded down."""
    return tl.floor(a / b)
''',
    "_floor_mod_float": '''
@triton.jit
def _floor_mod_float(a, b):
    """a - b * floor(a / b)."""
    return a - b * tl.floor(a / b)
''',
    "_multiply": """
@triton.jit
def _multiply(a, b):
    return a * b
""",
    "_greater": """
@triton.jit
def _greater(a, b):
    return tl.maximum(a, b)
""",
    "_relu": '''
@triton.jit
def _relu(x):
    """x where it is positive, else 0; NaN stays NaN (a maximum would drop it on a GPU)."""
    return tl.where(x <= 0, 0.0, x)
''',
    "_sigmoid": """
@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))
""",
    "_silu": """
@triton.jit
def _silu(x):
    return x / (1.0 + tl.exp(-x))
""",
    "_softplus": '''
@triton.jit
def _softplus(x):
    """log(1 + exp(x)) to full relative accuracy: log(1 + u) = log(w) * u / (w - 1) with w = 1 + u as rounded."""
    u = tl.exp(-tl.abs(x))
    w = 1.0 + u
    log1p = tl.where(w == 1.0, u, tl.log(w) * (u / tl.where(w == 1.0, 1.0, w - 1.0)))
    return tl.maximum(x, 0.0) + log1p
''',
    "_tanh": '''
@triton.jit
def _tanh(x):
    """A minimax polynomial near 0 (Cephes), 1 - 2 / (exp(2 |x|) + 1) elsewhere."""
    a = tl.abs(x)
    s = x * x
    near = ((-5.70498872745e-3 * s + 2.06390887954e-2) * s - 5.37397155531e-2) * s + 1.33314422036e-1
    near = (near * s - 3.33332819422e-1) * s * x + x
    far = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, near, tl.where(x < 0, -far, far))
''',
    "_gelu": """
@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
""",
    "_round": '''
@triton.jit
def _round(x):
    """To the nearest whole number, halves to even."""
    r = tl.floor(x + 0.5)
    return tl.where((r - x == 0.5) & (r != 2.0 * tl.floor(r * 0.5)), r - 1.0, r)
''',
    "_sign": """
@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))
""",
    "_power": '''
@triton.jit
def _power(x, y):
    """x ** y; a negative x needs a whole y."""
    at_zero = tl.where(y == 0, 1.0, tl.where(y > 0, 0.0, float("inf")))
    size = tl.where(x == 0, at_zero, tl.exp2(y * tl.log2(tl.where(x == 0, 1.0, tl.abs(x)))))
    odd = y != 2.0 * tl.floor(y * 0.5)
    whole = y == tl.floor(y)
    return tl.where(x < 0, tl.where(whole, tl.where(odd, -size, size), float("nan")), size)
''',
}


def helper_sources(names: Iterable[str]) -> str:
    """Text of the helpers, in alphabetical order."""
    return "\n".join(SOURCES[name] for name in sorted(set(names)))
