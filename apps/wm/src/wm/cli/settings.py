"""`wm settings`: what can be set."""

from typing import Annotated

import typer

from wm.console import make_console, text_table


def settings(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A section, such as train.agent, or (part of) a setting's name. Default: list the sections.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Show the values of this preset or TOML file.")] = "tiny",
) -> None:
    """List the settings that --set takes, with their values in a preset and their meaning."""
    from wm.config import build_config
    from wm.preset import preset_file, read_preset
    from wm.setting_docs import all_settings, find_settings, sections
    from wm.settings import flatten, unstructure

    console = make_console()
    values = flatten(unstructure(build_config(read_preset(preset), file=preset_file(preset))))
    if name is None:
        table = text_table("section", "settings", "what it is")
        for section, text in sections().items():
            inside = [s for s in all_settings() if s.name.rpartition(".")[0] == section]
            table.add_row(section, str(len(inside)), text)
        console.print(table)
        console.print("`wm settings SECTION` shows what each of them means")
        return
    table = text_table("setting", preset, "meaning")
    for setting in find_settings(name):
        table.add_row(setting.name, _toml(values[setting.name]), setting.text)
    console.print(table)


def _toml(value: object) -> str:
    """A value as `--set` takes it."""
    import tomli_w

    return tomli_w.dumps({"x": value}, multiline_strings=False).partition("=")[2].strip()
