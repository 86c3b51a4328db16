"""Part of einsmith; import it as `einsmith.sim`."""

if not __name__.startswith("einsmith."):
    raise ImportError("import this folder as `einsmith.sim`, not as `sim`: two copies of its classes would not be equal")
