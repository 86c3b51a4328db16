"""The group of commands: each loads, each has an example in its help, misspelt ones get a hint."""

import pytest
from click.testing import CliRunner

from einsmith.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    assert f"Example: einsmith {name}" in " ".join(done.output.replace("│", " ").split())


def test_the_group_lists_all_commands() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert all(name in done.output for name in COMMANDS)


def test_a_misspelt_command_gets_a_hint() -> None:
    done = CliRunner().invoke(main, ["analize"])
    assert done.exit_code == 2
    assert "Did you mean 'analyze'?" in done.output
