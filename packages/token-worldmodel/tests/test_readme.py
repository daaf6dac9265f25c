import re
from pathlib import Path


def test_every_example_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = Path(__file__).parent.parent / "README.md"
    examples = re.findall(r"^```python\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(readme), "exec"), namespace)
