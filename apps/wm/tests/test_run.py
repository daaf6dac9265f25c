import json
import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import typer
from wm import run, versions
from wm.cli.options import a_file
from wm.files import sha256, write_text
from wm.run import Layout, Manifest, StageRecord, fingerprint, remove_leftovers, require_writable


@pytest.fixture
def finished(tmp_path):
    layout = Layout(tmp_path)
    layout.hrvq.write_bytes(b"codes")
    manifest = Manifest(layout)
    manifest.record("hrvq", StageRecord("f", manifest.describe([layout.hrvq]), {}))
    return layout


def test_a_manifest_survives_the_disk(finished):
    record = Manifest(finished).stages["hrvq"]
    assert record.fingerprint == "f"
    assert record.artifacts["hrvq.safetensors"]["size"] == 5
    assert record.versions["wm"]
    assert Manifest(finished).check("hrvq") == []


def test_packages_that_are_merely_on_the_path_have_no_version(tmp_path, monkeypatch):
    """As where nothing can be installed: a cluster without a network, say."""

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", absent)
    Manifest(Layout(tmp_path)).record("hrvq", StageRecord("f", {}, {}))
    found = Manifest(Layout(tmp_path)).stages["hrvq"].versions
    assert found.pop("python")
    assert set(found.values()) == {"from source"}


def test_a_missing_artifact_is_told_and_a_changed_one_is_an_error(finished):
    finished.hrvq.write_bytes(b"codes")  # touched, same bytes
    assert Manifest(finished).check("hrvq") == []
    finished.hrvq.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"hrvq\.safetensors is not the file that stage hrvq wrote"):
        Manifest(finished).check("hrvq")
    finished.hrvq.unlink()
    assert Manifest(finished).check("hrvq") == ["hrvq.safetensors"]


def test_a_copied_run_is_read_whole_once(finished, monkeypatch):
    """All its files have other times."""
    os.utime(finished.hrvq, ns=(1, 1))
    read = []
    monkeypatch.setattr(run, "sha256", lambda path: read.append(path) or sha256(path))
    manifest = Manifest(finished)
    for _ in range(3):
        assert manifest.check("hrvq") == []
    manifest.keep_notes()
    Manifest(finished).check("hrvq")
    assert read == [finished.hrvq]


def test_the_unfinished_files_of_a_killed_process_go(finished):
    left = finished.root / "embeddings" / ".pong.safetensors.123.tmp"
    left.parent.mkdir()
    checkpoint = finished.root / "checkpoints" / ".agent-0f.pt.123.tmp"
    checkpoint.parent.mkdir()
    settings, scores = finished.root / ".config.toml.123.tmp", finished.root / ".evaluation.json.123.tmp"
    notes = finished.root / ".notes.tmp"
    for path in (left, checkpoint, settings, scores, notes):
        path.write_text("")
    remove_leftovers(finished.root)
    assert not any(path.exists() for path in (left, checkpoint, settings, scores))
    assert [path.exists() for path in (notes, finished.hrvq)] == [True, True]


def test_a_process_killed_while_it_wrote_the_first_settings_leaves_a_place_for_a_run(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.toml.123.tmp").touch()
    require_writable(tmp_path)
    (tmp_path / "thesis.toml").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        require_writable(tmp_path)


def test_no_result_is_written_over_what_a_run_has_made(finished, monkeypatch):
    finished.config.write_text("")
    monkeypatch.chdir(finished.root)
    for path in (finished.hrvq, finished.config, Path("hrvq.safetensors")):
        with pytest.raises(typer.BadParameter, match="is one of the run's own files; choose another path"):
            a_file(path)
    assert a_file(finished.root / "score.json") == finished.root / "score.json"


def test_a_file_is_of_the_stage_that_wrote_it_last(finished):
    finished.hrvq.write_bytes(b"other")
    finished.agent.write_bytes(b"agent")
    manifest = Manifest(finished)
    manifest.record("agent", StageRecord("a", manifest.describe([finished.agent]), {}))
    manifest.record("hrvq-1", StageRecord("g", manifest.describe([finished.hrvq]), {}))
    assert list(Manifest(finished).stages) == ["agent", "hrvq-1"]
    assert Manifest(finished).check("hrvq-1") == []


def test_what_was_made_before_a_stage_was_begun_anew_is_taken_back_if_it_is_still_there(finished):
    manifest = Manifest(finished)
    manifest.begin("hrvq")
    assert "hrvq" not in Manifest(finished).stages
    again = Manifest(finished)
    assert not again.reinstate("hrvq", "other settings")
    assert again.reinstate("hrvq", "f")
    assert Manifest(finished).check("hrvq") == []
    assert not Manifest(finished).set_aside
    again.begin("hrvq")
    finished.hrvq.write_bytes(b"other")
    assert not again.reinstate("hrvq", "f")
    finished.hrvq.unlink()
    assert not again.reinstate("hrvq", "f")
    finished.hrvq.write_bytes(b"codes")
    again.forget(["hrvq"])
    assert not again.reinstate("hrvq", "f")
    again.set_aside["hrvq"] = StageRecord("f", {}, {})
    finished.hrvq.write_bytes(b"newer")
    again.record("hrvq", StageRecord("g", again.describe([finished.hrvq]), {}))
    assert not Manifest(finished).set_aside


def test_a_damaged_manifest_is_named(finished):
    for text in ("{", "{}"):
        finished.manifest.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            Manifest(finished)


def test_a_manifest_of_a_newer_version_is_not_called_damaged(finished):
    newer = json.loads(finished.manifest.read_text()) | {"schema": 2}
    newer["stages"]["hrvq"]["only_newer_versions_know_this"] = 1
    finished.manifest.write_text(json.dumps(newer))
    with pytest.raises(ValueError, match=r"has schema 2, but this version of wm reads up to 1; update wm"):
        Manifest(finished)


def test_fingerprints_ignore_order_and_see_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_write_text_leaves_no_partial_file(tmp_path):
    write_text(tmp_path / "deep" / "x.json", json.dumps([1]))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.json"]
