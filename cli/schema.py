"""`einsmith schema`: the JSON Schema of spec files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import rich_click as click

from .common import guarded


@dataclass
class Schema:
    """A JSON Schema."""

    schema: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return self.schema

    def __str__(self) -> str:
        return json.dumps(self.schema, indent=2)


@click.command()
@guarded
def command() -> Schema:
    """JSON Schema of spec files, for editors: completion, and an explanation of each key.

    Example: einsmith schema > einsmith.schema.json
    """
    from ..einsum.schema import schema

    return Schema(schema())
