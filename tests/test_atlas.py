import base64
import io
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch
from atari_data import FrameStore
from command import wm
from PIL import Image
from rich.console import Console
from token_worldmodel import TokenTrajectories, load_tokens, save_tokens
from wm.device import pick_device
from wm.reporter import Reporter
from wm.run import Layout
from wm.view.atlas import different, read_atlas
from wm.view.atlas_page import page as render
from wm.view.viewer import Viewer

QUIET = Reporter(Console(quiet=True))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "page.html"
    done = wm("atlas", run, "--out", path, "--examples", 3, "--device", "cpu")
    assert done.code == 0, done.output
    return path.read_text()


def test_the_page_has_every_code_in_use_once_and_nothing_from_outside(run, page):
    tokens = load_tokens(Layout(run).tokens("pong")).tokens
    shown = re.findall(r'<article id="L(\d+)-(\d+)">', page)
    expected = {(str(level), str(code)) for level in range(3) for code in np.unique(tokens[:, level])}
    assert len(shown) == len(expected)
    assert set(shown) == expected
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    assert "What the games share" not in page


def test_pictures_on_the_page_are_frames(page):
    sizes = set()
    for text in re.findall(r'src="data:image/png;base64,([^"]*)"', page):
        sizes.add(Image.open(io.BytesIO(base64.b64decode(text))).size)
    assert (84, 84) in sizes
    assert sizes <= {(84, 84), (84 + 88, 84), (84 + 2 * 88, 84)}


def test_one_level_alone_and_levels_that_are_not_there(run, tmp_path):
    assert wm("atlas", run, "--level", 1, "--out", tmp_path / "one.html", "--device", "cpu").code == 0
    assert set(re.findall(r'<article id="(L\d+)', (tmp_path / "one.html").read_text())) == {"L1"}
    wrong = wm("atlas", run, "--level", 3, "--device", "cpu")
    assert wrong.code == 2
    assert "--level 3 is not in this run; its levels are 0 to 2" in wrong.output


def test_codes_are_sorted_and_their_examples_chose_them(run):
    layout = Layout(run)
    atlas = read_atlas(layout, ("pong",), Viewer.load(layout, pick_device("cpu")), [0, 2], 2, 0, QUIET)
    assert [level.index for level in atlas.levels] == [0, 2]
    store, tokens = FrameStore.open(layout.data("pong")), load_tokens(layout.tokens("pong")).tokens
    for level in atlas.levels:
        used = [int(code.counts.sum()) for code in level.codes]
        assert used == sorted(used, reverse=True)
        assert sum(used) == len(store)
        for code in level.codes:
            owners = store.frames[np.flatnonzero(tokens[:, level.index] == code.index)]
            assert code.counts.tolist() == [len(owners)]
            assert all((owners == example).all((1, 2)).any() for example in code.examples)
    first = atlas.levels[0].codes[0]
    viewer = Viewer.load(layout, pick_device("cpu"))
    alone = viewer.draw(torch.tensor([[first.index, -1, -1]]), "pong")[0]
    np.testing.assert_allclose(first.drawn[1], alone[1], atol=1e-3)
    np.testing.assert_allclose(first.added, alone[1] - alone[0], atol=1e-3)


def test_a_game_shares_everything_with_itself(run, tmp_path):
    copy = Layout(shutil.copytree(run, tmp_path / "copy"))
    shutil.copytree(copy.data("pong"), copy.data("twin"))
    for path in (copy.tokens, copy.embeddings):
        shutil.copy(path("pong"), path("twin"))
    viewer = Viewer.load(copy, pick_device("cpu"))
    both = Viewer(
        viewer.quantizer,
        viewer.decoder,
        {**viewer.backgrounds, "twin": viewer.backgrounds["pong"]},
    )
    atlas = read_atlas(copy, ("pong", "twin"), both, [0, 1, 2], 2, 0, QUIET)
    assert atlas.frames[0] == atlas.frames[1]
    assert atlas.sharing.shared.tolist() == [1, 1, 1]
    torch.testing.assert_close(atlas.sharing.divergence, torch.zeros(3, 2, 2))
    assert float(atlas.sharing.information.estimate.max()) == pytest.approx(0, abs=0.02)
    assert all(code.counts[0] == code.counts[1] for level in atlas.levels for code in level.codes)
    shown = render(atlas)
    section = shown[shown.index("What the games share") : shown.index('<h2 id="L0">')]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", section)
    assert cells.count("100%") >= 3  # of L0, L1 and L2 all is shared
    assert any(re.fullmatch(r"-?\d\.\d{3} to \d\.\d{3}", cell) for cell in cells)


def test_a_page_is_no_picture_and_needs_tokens_of_all_play(run, tmp_path):
    picture = wm("atlas", run, "--out", tmp_path / "page.png", "--device", "cpu")
    assert picture.code == 2
    assert "give a name that ends in .html" in " ".join(picture.output.split())
    assert not list(tmp_path.iterdir())
    copy = Layout(shutil.copytree(run, tmp_path / "copy"))
    tokens = load_tokens(copy.tokens("pong"))
    half = {f.name: getattr(tokens, f.name)[: len(tokens) // 2] for f in fields(tokens)}
    save_tokens(copy.tokens("pong"), TokenTrajectories(**half))
    stale = wm("atlas", copy.root, "--device", "cpu")
    assert stale.code == 2
    assert "the tokens of pong were not made from the frames that" in " ".join(stale.output.split())
    copy.tokens("pong").unlink()
    missing = wm("atlas", copy.root, "--device", "cpu")
    assert missing.code == 2
    assert f"there are no tokens of pong yet; run `wm train --run {copy.root}` to make them" in missing.output


def test_examples_come_from_different_moments():
    episodes = torch.tensor([0] * 200 + [1] * 10)
    candidates = torch.tensor([5, 6, 205, 7, 180, 206, 181, -1])
    assert different(candidates, episodes, 3).tolist() == [5, 205, 180]
    assert different(candidates, episodes, 5).tolist() == [5, 205, 180, 6, 7]
    assert different(candidates, episodes, 99).tolist() == [5, 205, 180, 6, 7, 206, 181]


def test_a_run_without_a_decoder_says_what_to_do(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    Layout(copy).decoder.unlink()
    done = wm("atlas", copy, "--device", "cpu")
    assert done.code == 2
    assert "has no decoder yet; run `wm train --run" in done.output
