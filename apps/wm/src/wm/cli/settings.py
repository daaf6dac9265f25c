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
    """List the settings of a run, with their values in a preset and their meaning."""
    import json
    from collections import Counter

    from wm.config import build_config
    from wm.preset import preset_file, read_preset
    from wm.setting_docs import all_settings, find_settings, follow_from, sections
    from wm.settings import flatten, unstructure

    console = make_console()
    given = unstructure(build_config(read_preset(preset), file=preset_file(preset)))
    if name is None:
        table = text_table("section", "settings", "what it is")
        known = all_settings()
        for setting, text in known.items():
            if "." not in setting:
                table.add_row(setting, "", text)
        inside = Counter(setting.rpartition(".")[0] for setting in known)
        for section, text in sections().items():
            table.add_row(section, str(inside[section]), text)
        console.print(table)
        console.print("`wm settings SECTION` shows what each of them means")
        return
    values, follows = flatten(given), follow_from(given)
    table = text_table("setting", preset, "meaning")
    for setting, text in find_settings(name).items():
        remark = f" (Follows from {follows[setting]}.)" if setting in follows else ""
        # As `--set` takes it: of these values JSON is TOML.
        table.add_row(setting, json.dumps(values[setting]), text + remark)
    console.print(table)
