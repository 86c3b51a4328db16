"""Part of einsmith; import it as `einsmith.mapper`."""

if not __name__.startswith("einsmith."):
    raise ImportError("import this folder as `einsmith.mapper`, not as `mapper`: two copies of its classes would not be equal")
