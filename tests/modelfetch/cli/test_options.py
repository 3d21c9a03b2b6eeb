"""Flags of a command follow from the settings."""

from typer.testing import CliRunner

from modelfetch.cli.app import app
from modelfetch.cli.settings import WITHOUT_FLAG, Settings, list_variables


def test_every_setting_has_a_flag_and_shows_its_variable() -> None:
    """Flag and variable are named alike; a secret has no flag, because `ps` would show the value."""
    env = {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
    text = "".join(CliRunner().invoke(app, [command, "--help"], env=env).output for command in ("pull", "push"))

    for field, info in Settings.model_fields.items():
        assert info.description
        shown = f"--{field.replace('_', '-')}" in text, f"[{list_variables(field)[0]}]" in text
        assert shown == ((False, False) if field in WITHOUT_FLAG else (True, True)), field
