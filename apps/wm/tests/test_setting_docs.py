"""`wm settings`: every setting has a meaning that a user can read."""

from dataclasses import dataclass

import pytest
from typer.testing import CliRunner
from wm.cli import app
from wm.config import build_config
from wm.preset import PRESETS, read_preset
from wm.setting_docs import all_settings, field_docs, find_settings, follow_from, sections
from wm.settings import flatten, parse_override, unstructure


def test_every_setting_of_a_run_says_what_it_means():
    settings = all_settings()
    assert [name for name, text in settings.items() if len(text) < 8] == []
    of_a_run = flatten(unstructure(build_config(read_preset("tiny"))))
    assert list(settings) == list(of_a_run)
    assert {name.rpartition(".")[0] for name in settings} - {""} == set(sections())
    assert all(sections().values())


def test_meanings_are_read_from_docstrings_and_from_below_fields():
    @dataclass
    class Base:
        """A base.

        Args:
            first: one thing, told
                in two lines.
            second, third: two things: alike.

        More about it.
        """

        first: int = 0
        second: int = 0
        third: int = 0

    @dataclass
    class Extended(Base):
        """One more."""

        fourth: int = 0
        """Of ``fourth``
        alone."""
        third: int = 1
        """Another now."""

    assert field_docs(Extended) == {
        "first": "one thing, told in two lines.",
        "second": "two things: alike.",
        "third": "Another now.",
        "fourth": "Of `fourth` alone.",
    }


def test_settings_are_found_by_section_by_name_and_by_a_part_of_it():
    assert list(find_settings("windows")) == [
        "windows.clip",
        "windows.length",
        "windows.game_weights",
    ]
    assert list(find_settings("seed")) == ["seed"]
    assert list(find_settings("train.agent.clip")) == ["train.agent.clip"]
    assert list(find_settings("layout_b")) == ["contrastive.layout_bands"]
    assert list(find_settings("agent.steps")) == ["train.agent.steps"]
    with pytest.raises(ValueError, match="no section or setting 'worldmodell'; did you mean worldmodel"):
        find_settings("worldmodell")
    with pytest.raises(ValueError, match="no section or setting '§'; `wm settings` lists the sections"):
        find_settings("§")


def test_sizes_that_cannot_be_chosen_say_what_they_follow_from():
    given = unstructure(build_config(read_preset("tiny")))
    follows = follow_from(given)
    assert follows["hrvq.dim"] == "encoder.embedding_dim"
    assert follows["actor.num_actions"] == "ALE's full set of 18 actions"
    assert follows.keys() < flatten(given).keys()
    shown = CliRunner().invoke(app, ["settings", "hrvq.dim"], env={"COLUMNS": "160"})
    assert "(Follows from encoder.embedding_dim.)" in shown.output


def test_a_list_is_shown_as_set_takes_it():
    shown = CliRunner().invoke(app, ["settings", "train.worldmodel.betas"], env={"COLUMNS": "160"})
    assert " [0.9, 0.95] " in shown.output
    assert parse_override("train.worldmodel.betas=[0.9, 0.95]")["train"]["worldmodel"]["betas"] == [0.9, 0.95]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_shows_a_presets_values(preset):
    shown = CliRunner().invoke(app, ["settings", "collect.num_steps", "--preset", preset])
    assert shown.exit_code == 0, shown.output
    assert f" {build_config(read_preset(preset)).collect.num_steps} " in shown.output
    assert preset in shown.output


def test_the_command_lists_the_sections():
    shown = CliRunner().invoke(app, ["settings"])
    assert shown.exit_code == 0, shown.output
    for section in ("games", "seed", "train.worldmodel", "rounds", "hrvq"):
        assert f" {section} " in shown.output
