import resource

import pytest
from wm.files import append_line, written_whole


@pytest.mark.parametrize("name", [lambda partial: partial, str, lambda _: None])
def test_what_cannot_be_written_is_named_and_not_its_temporary_file(tmp_path, name):
    target = tmp_path / "film.gif"
    with pytest.raises(PermissionError) as refused, written_whole(target) as partial:
        raise PermissionError(13, "Permission denied", name(partial))
    assert refused.value.filename == str(target)
    assert not list(tmp_path.iterdir())


def test_another_file_that_fails_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as missing, written_whole(tmp_path / "copy"):
        (tmp_path / "source").read_bytes()
    assert missing.value.filename == str(tmp_path / "source")


def test_a_line_is_added_completely_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, "first")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError, match="No space left on device") as refused:
            append_line(path, "a second one, of which four bytes fit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert refused.value.filename == str(path)
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"
