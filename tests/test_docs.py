"""The documents are correct: their code runs, their commands exist, their links lead somewhere."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command
from wm.cli import app
from wm.config import RETIRED, RunConfig
from wm.settings import flatten, unstructure
from wm.stages import STAGES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/*/README.md"))]


@pytest.fixture
def python_of(tmp_path, monkeypatch, run):
    """Runs the Python in a document where ``runs/pong-tiny-0`` is a run, and gives what it has named."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pong-tiny-0").symlink_to(run)
    monkeypatch.chdir(tmp_path)

    def names_in(document):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.S)
        assert blocks
        names: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, document, "exec"), names)
        return names

    return names_in


def test_python_in_the_readme_runs(python_of):
    names = python_of("README.md")
    assert names["tokens"].shape == (4096, 3)
    assert names["observations"].shape == (4, 4, 84, 84)


def test_python_in_the_pipeline_runs(python_of):
    names = python_of("docs/pipeline.md")
    assert len(names["played"].returns) == 2
    assert names["dream"].tokens.shape == (1, 1 + names["horizon"], 3)
    assert names["dream"].actions.shape == (1, names["horizon"])


def test_the_tutorial_takes_every_stage_in_order():
    taken = re.findall(r"^    wm train ([a-z]+)", (ROOT / "docs/tutorial.md").read_text(), flags=re.M)
    assert taken == [stage.name for stage in STAGES]


def test_readmes_name_the_oldest_torch_that_a_package_asks_for():
    for package in sorted(ROOT.glob("packages/*")):
        asked = re.search(r'"torch>=([0-9.]+)"', (package / "pyproject.toml").read_text())
        told = re.findall(r"torch ([0-9.]+) or later", (package / "README.md").read_text())
        assert told == ([asked[1]] if asked else []), package.name


@pytest.mark.parametrize(
    "readme", sorted(ROOT.glob("packages/*/README.md")), ids=lambda path: path.parent.name
)
def test_a_package_s_readme_lists_every_public_name_with_the_first_line_of_its_docstring(readme):
    package = import_module(readme.parent.name.replace("-", "_"))
    _, names = readme.read_text().split("## All names\n")
    listed = dict(re.findall(r"^- `(\w+)`: (.+)$", names, flags=re.M))
    assert list(listed) == package.__all__
    for name, line in listed.items():
        value = getattr(package, name)
        if inspect.ismodule(value) or getattr(value, "__module__", "").startswith(package.__name__):
            documented = (inspect.getdoc(value) or "").splitlines()[0].replace("``", "`")
            assert line == re.sub(r":\w+:`([^`]+)`", r"`\1`", documented)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_and_links_exist(document):
    text = document.read_text()
    commands = get_command(app).commands
    for called in re.findall(r"(?:uv run |`)wm ([a-z][a-z0-9-]*)", text):
        assert called in commands, f"{document.name} names `wm {called}`"
    for name, rest in re.findall(r"(?:uv run |`)wm ([a-z][a-z0-9-]*)([^`\n]*)", text):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        for option in re.findall(r"(--[a-z0-9-]+)", rest.split("#")[0]):
            assert option in options | {"--help"}, f"{document.name} names `wm {name} {option}`"
    known = set(flatten(unstructure(RunConfig())))
    if document.parent.name == "results":  # of runs made with settings of their day
        known |= set(RETIRED)
    if document.name != "log.md":  # which keeps what was tried with settings of its day
        for key in re.findall(r"--set ([a-z0-9_]+\.[a-z0-9_]+)=", text):
            assert key in known or key == "section.key", f"{document.name} sets {key}"
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if "://" not in link:
            target = document.parent / link if link else document
            assert target.exists(), f"{document.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{document.name} links to {link}#{anchor}"


def anchors(document):
    """The headings of a document, as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
