"""Part of einsmith; import it as `einsmith.einsum.analysis`."""
