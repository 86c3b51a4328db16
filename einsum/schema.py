"""The JSON Schema of spec files, with which editors complete keys and explain them.

In: nothing. Out: a schema (draft 2020-12) of the YAML structure. Einsums and expressions are texts to it; what is in them is for
`einsmith check`.
"""

from __future__ import annotations

from typing import Any

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _mapping(description: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": ["object", "null"], "description": description, "additionalProperties": False, "patternProperties": {NAME: value},
    }  # fmt: skip


def schema() -> dict[str, Any]:
    """The schema."""
    name = {"type": "string", "pattern": NAME}
    # an editor reads `no` and `1e3` as YAML does, einsmith as the text that was typed
    about = "A number, or an expression of extents and parameters."
    expression = {"type": ["integer", "number", "string", "boolean"], "description": about}
    size = {"type": "integer", "minimum": 0, "maximum": 2**48}
    ranks = {"type": "array", "items": name, "description": "The rank along each dimension."}
    tensor = {
        "anyOf": [
            ranks,
            {
                "type": "object", "additionalProperties": False, "required": ["ranks"],
                "properties": {"ranks": ranks, "dtype": {"enum": ["float", "int", "bool"], "default": "float"}},
            },
        ]
    }  # fmt: skip
    written_out = {"type": "object", "additionalProperties": False, "required": ["ranks"], "properties": {"ranks": ranks}}
    target = {"anyOf": [ranks, written_out]}
    rank = {
        "anyOf": [
            expression,
            {
                "type": "object", "additionalProperties": False, "required": ["extent"],
                "dependentRequired": {"split": ["tile"], "tile": ["split"], "count": ["split"]},
                "properties": {
                    "extent": expression,
                    "split": {
                        "type": "array", "items": name, "minItems": 2, "maxItems": 2,
                        "description": "Names of the outer and the inner part: rank = outer * tile + inner.",
                    },
                    "tile": {**expression, "description": "Extent of the inner part."},
                    "count": {**name, "description": "A name for the extent of the outer part, ceil(extent / tile)."},
                },
            },
        ]
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "einsmith spec: a cascade of Einsums",
        "type": "object",
        "additionalProperties": False,
        "required": ["cascade", "outputs"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 200, "description": "What the cascade is called in reports."},
            "doc": {"type": "string", "description": "What it computes, and where it is from."},
            "ranks": _mapping("Rank variables and their extents.", rank),
            "inputs": _mapping("Tensors that are given, with the ranks of each.", tensor),
            "params": _mapping("Scalars: expressions of extents and earlier parameters. `--param` sets them.", expression),
            "sizes": _mapping("Sizes of extents where the command line gives none.", size),
            "tensors": _mapping("Targets of scatters, with the ranks of each.", target),
            "cascade": {"type": "string", "minLength": 1, "description": "The Einsums, one per line: NAME[indices] = expression."},
            "outputs": {"type": "array", "items": name, "minItems": 1, "uniqueItems": True, "description": "Tensors to compute."},
        },
    }
