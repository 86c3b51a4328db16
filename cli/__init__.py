"""Part of einsmith; import it as `einsmith.cli`."""

if not __name__.startswith("einsmith."):
    raise ImportError("import this folder as `einsmith.cli`, not as `cli`: two copies of its classes would not be equal")
