"""Part of einsmith; import it as `einsmith.kernels`."""

if not __name__.startswith("einsmith."):
    raise ImportError("import this folder as `einsmith.kernels`, not as `kernels`: two copies of its classes would not be equal")
