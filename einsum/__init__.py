"""Part of einsmith; import it as `einsmith.einsum`."""

if not __name__.startswith("einsmith."):
    raise ImportError("import this folder as `einsmith.einsum`, not as `einsum`: two copies of its classes would not be equal")
