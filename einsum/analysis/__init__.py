"""Part of einsmith; import it as `einsmith.einsum.analysis`."""

from .report import Analysis, analyze

__all__ = ["Analysis", "analyze"]
