"""The `einsmith` program: finds the command, imports only what it needs, and turns faults into diagnostics and exit codes.

Exit codes: 0 done; 1 the input is wrong or the request cannot be met; 2 usage. With `--json` standard output holds exactly one
JSON object, also when the command fails.
"""

from __future__ import annotations

import importlib

import rich_click as click

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module under einsmith.cli, one line of help); the module is imported when the command is asked for
    "check": ("check", "Parse, resolve and verify spec files"),
    "fmt": ("fmt", "Print a spec in canonical form"),
    "explain": ("explain", "What an error code means, with an example"),
    "analyze": ("analyze", "Passes, footprints, operations and traffic bounds of a cascade"),
    "derive": ("derive", "The form with the fewest passes that algebra allows, with its proof"),
    "run": ("run", "Evaluate a cascade on given inputs"),
    "equal": ("equal", "Are two cascades the same function?"),
    "model": ("model", "Cost of a given mapping on an accelerator"),
    "map": ("map", "The best mapping of a cascade onto an accelerator"),
    "simulate": ("simulate", "Execute a mapped cascade event by event"),
    "reproduce": ("reproduce", "A published evaluation from files: tables and figures"),
    "plan": ("plan", "GPU tiling plan and its predictions"),
    "emit": ("emit", "Generate a standalone Triton module"),
    "test": ("test", "Check a kernel against the float64 meaning over a grid of shapes"),
    "bench": ("bench", "Time a kernel against torch, on a GPU"),
    "demo": ("demo", "Textbook attention all the way to a checked kernel"),
    "sweep": ("sweep", "Many points of a design space: resumable, on one machine or many"),
    "report": ("report", "The results of a sweep as one HTML file"),
    "show": ("show", "A cascade, a mapping, a plan or a timeline as a picture"),
    "schema": ("schema", "JSON Schema of spec files, for editors"),
}


class LazyGroup(click.RichGroup):
    """A group whose commands are imported when they run; its own help needs their names and one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return click.RichCommand(name=name, short_help=COMMANDS[name][1]) if name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            if close:
                ctx.fail(f"No such command '{args[0]}'. Did you mean '{close[0]}'?")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and command.name is not None:
            command = importlib.import_module(f".{COMMANDS[command.name][0]}", __package__).command
        return name, command, rest


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(package_name="einsmith")
def main() -> None:
    """Attention algorithms as cascades of Einsums: how many passes they need, how few algebra allows, how they map onto
    accelerators and GPUs, and Triton kernels that are checked."""
