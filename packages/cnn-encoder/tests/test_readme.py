import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_every_block_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    assert namespace["z"].shape == (80, 384)
    assert namespace["picture"].shape == (5, 84, 84)
    assert {p.name for p in tmp_path.iterdir()} == {"encoder.safetensors", "pong.safetensors"}
