import json
from functools import reduce

import pytest
import tomli_w
from wm.config import (
    RETIRED,
    YOUNGER,
    RunConfig,
    build_config,
    derived_sizes,
    load_config,
    read_run,
    save_config,
)
from wm.consistency import require_long_episodes
from wm.preset import PRESETS, default_directory, nearest_preset, read_preset
from wm.run import fingerprint
from wm.sections import DreamConfig
from wm.settings import merge, parse_override, unstructure
from wm.stages import stages_of
from wm.stages.encoder import STAGE as ENCODER
from wm.stages.evaluate import STAGE as EVALUATE
from wm.training import _resolve


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_runs_that_survive_the_disk(name, tmp_path):
    config = build_config(read_preset(name))
    save_config(tmp_path / "config.toml", config)
    assert load_config(tmp_path / "config.toml") == config


def test_the_reference_preset_has_the_numbers_of_the_design():
    config = build_config(read_preset("reference"))
    assert config.games == ("pong", "breakout", "ms_pacman")
    assert config.collect.num_steps == 100_000
    assert config.train.encoder.epochs == 30
    assert (config.hrvq.levels, config.hrvq.codes, config.quantize.epochs) == (3, 256, 50)
    assert config.hrvq.commitment_weights == (0.05, 0.25, 0.60)
    model, fit = config.worldmodel, config.train.worldmodel
    assert (model.num_layers, model.dim, model.num_heads, model.ffn_dim) == (6, 384, 6, 1536)
    assert model.loss_weights == (1.0, 0.5, 0.1)
    assert (fit.learning_rate, fit.weight_decay, fit.betas, fit.warmup) == (3e-4, 0.1, (0.9, 0.95), 1000)
    assert (fit.batch_size, fit.accumulation, fit.clip, fit.epochs) == (32, 2, 1.0, 40)
    assert (config.windows.length, config.dream.horizon) == (64, 15)
    assert (config.agent.gamma, config.agent.lambda_) == (0.997, 0.95)


def test_a_run_older_than_a_setting_was_made_without_it(tmp_path):
    written = unstructure(build_config(read_preset("hour")))
    younger = ("layout_bands", "epsilon", "joint", "refine", "optimizer")

    def without(section):
        inner = {key: without(value) if isinstance(value, dict) else value for key, value in section.items()}
        return {key: value for key, value in inner.items() if key not in younger}

    (tmp_path / "config.toml").write_text(tomli_w.dumps(without(written)))
    config = load_config(tmp_path / "config.toml")
    assert (config.evaluate.epsilon, config.quantize.refine) == (0, 0)
    assert (config.contrastive.layout_bands, config.hrvq.joint) == (0, False)
    assert config.train.worldmodel.optimizer == "adamw"


def test_a_run_with_settings_that_are_gone_is_read_if_they_asked_for_what_is_done_now(tmp_path):
    file = tmp_path / "config.toml"
    config = build_config(read_preset("hour"))
    gone = [parse_override(f"{key}={json.dumps(value)}") for key, value in RETIRED.items()]
    written = reduce(merge, gone, unstructure(config))
    assert written["train"]["worldmodel"]["alike_codes"] is False
    file.write_text(tomli_w.dumps(written))
    assert load_config(file) == config
    file.write_text(tomli_w.dumps(merge(written, {"rounds": {"renew": [5]}})))
    with pytest.raises(ValueError, match=r"^rounds\.renew is \[5\] in .*config\.toml, .* no such setting"):
        load_config(file)
    with pytest.raises(ValueError, match=r"unknown setting 'rounds\.renew'"):
        build_config(read_preset("hour"), parse_override("rounds.renew=[]"))


@pytest.mark.parametrize("codes", ["1", "[16, 1, 8]"])
def test_one_code_is_refused_where_it_is_set(codes):
    with pytest.raises(ValueError, match=r"^hrvq\.codes is .*; give at least 2 for every level$"):
        build_config(read_preset("tiny"), parse_override(f"hrvq.codes={codes}"))


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("preset", ["tiny", "hour"])
def test_loss_weights_that_follow_from_the_levels_are_no_change_of_a_preset(preset, levels):
    config = build_config(read_preset(preset), {"hrvq": {"levels": levels}})
    assert nearest_preset(config) == (preset, {"hrvq.levels": levels})


def test_a_configuration_that_was_read_is_the_readers_own(tmp_path):
    save_config(tmp_path / "config.toml", build_config(read_preset("tiny")))
    read_run(tmp_path / "config.toml")["quantize"]["refine"] = 5
    (tmp_path / "config.toml").write_text("")
    read_run(tmp_path / "config.toml")["quantize"]["refine"] = 5
    assert read_run(tmp_path / "config.toml")["quantize"]["refine"] == 0


def test_one_setting_changes_every_size_that_follows_from_it():
    changes = merge(parse_override("hrvq.levels=2"), parse_override("encoder.embedding_dim=64"))
    config = build_config(read_preset("tiny"), changes)
    assert config.worldmodel.loss_weights == (1.0, 1.0)
    assert config.hrvq.dim == 64
    assert config.worldmodel.num_levels == 2
    assert config.actor.feature_dim == config.critic.feature_dim == config.predictor.feature_dim == 128
    changes = merge(changes, parse_override("dream.hidden_state=true"))
    config = build_config(read_preset("tiny"), merge(changes, parse_override("worldmodel.dim=48")))
    assert config.actor.feature_dim == config.critic.feature_dim == 176
    assert config.predictor.feature_dim == 128


def test_the_width_of_the_codes_that_are_read_follows_the_encoder():
    base = merge(read_preset("tiny"), parse_override("worldmodel.code_dim=384"))
    assert build_config(base).worldmodel.code_dim == 384
    assert build_config(base, parse_override("encoder.embedding_dim=64")).worldmodel.code_dim == 64
    assert build_config(base, parse_override("worldmodel.code_dim=0")).worldmodel.code_dim == 0
    follows = [[key for _, key, *_ in derived_sizes(read_preset(name))] for name in ("tiny", "reference")]
    assert ["code_dim" in keys for keys in follows] == [False, True]  # whether they are read can be chosen
    with pytest.raises(ValueError, match=r"code_dim follows from encoder\.embedding_dim and is 384; set"):
        build_config(base, parse_override("worldmodel.code_dim=64"))


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("preset", ["tiny", "hour", "atari100k", "atari100k_cpu"])
def test_levels_may_be_changed_of_a_run_as_of_its_preset(preset, levels):
    change, written = {"hrvq": {"levels": levels}}, unstructure(build_config(read_preset(preset)))
    assert build_config(written, change) == build_config(read_preset(preset), change)


def test_weights_of_levels_follow_where_they_were_given_for_any_number():
    written = unstructure(RunConfig())  # of the world model's defaults
    assert build_config(written, {"hrvq": {"levels": 2}}).worldmodel.loss_weights == (1.0, 0.5)
    own = merge(written, {"worldmodel": {"loss_weights": [1.0, 0.5, 0.3]}})
    with pytest.raises(ValueError, match="give 2 of at least 0, one per level"):
        build_config(own, {"hrvq": {"levels": 2}})


def test_a_size_that_follows_cannot_be_set():
    with pytest.raises(ValueError, match=r"actor\.feature_dim follows from hrvq\.levels and encoder"):
        build_config(read_preset("tiny"), parse_override("actor.feature_dim=100"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("windows.length=100", r"windows\.length is 100; it must be at most worldmodel\.max_steps"),
        (
            "train.agent.batch_size=2",
            r"train\.agent\.batch_size is 2; it must be at least agent\.ppo_minibatches",
        ),
        ("train.decoder.batch_size=1", r"train\.decoder\.batch_size is 1; give at least 2"),
        ("collect.num_steps=5", r"\[collect\] num_steps is 5; give 100 to 1000000000"),
        ("games=[]", "games is empty"),
        (
            "agent.reward_transform=symlog",
            "agent.reward_transform is symlog, but the predictor predicts only the signs",
        ),
        (
            "actor.feature_blocks=[1152]",
            r"actor\.feature_blocks is \[1152\]; give the widths of the codes, \[384, 384, 384\], or \[\]",
        ),
        ("predictor.feature_blocks=[768, 384]", r"predictor\.feature_blocks is \[768, 384\]"),
        ("actor.num_actions=6", r"actor\.num_actions is 6; give 18, ALE's full set, for any game"),
        ("worldmodel.num_actions=6", r"worldmodel\.num_actions is 6; give 18"),
        ("windows.clip=3", "clip is 3; give at least 4"),
        (
            "windows.game_weights=[1.0, 2.0]",
            "windows.game_weights has 2 values and games has 1; give one per game",
        ),
        ("windows.game_weights=[0.0]", r"game_weights is \[0\.0\]; give finite numbers above 0"),
        (
            "evaluate.temperature=-1",
            "temperature is -1.0; give 0 .greedy. or a finite number of at least 1e-6",
        ),
        (
            "dream.temperature=1e-9",
            "temperature is 1e-09; give 0 .greedy. or a finite number of at least 1e-6",
        ),
        ("hrvq=3", "hrvq is 3; it is a section, so set hrvq.KEY=VALUE"),
        ("worldmodel=3", "worldmodel is 3; it is a section"),
        ("actor=3", "actor is 3; it is a section"),
    ],
)
def test_what_cannot_be_is_told(override, message):
    with pytest.raises(ValueError, match=message):
        build_config(read_preset("tiny"), parse_override(override))


def test_settings_younger_than_a_run_leave_its_fingerprints_alone():
    """What a run that was made before them recorded is what these settings at rest have, and only at rest."""
    config = build_config(read_preset("tiny"))
    encoder, evaluate = (unstructure([s.settings(config)], YOUNGER)[0] for s in (ENCODER, EVALUATE))
    assert "layout_lag" in encoder[1]
    assert not {"layout_bands", "shift"} & encoder[1].keys()
    assert not {"epsilon"} & evaluate[0].keys()
    settings = ("contrastive.shift=2", "evaluate.epsilon=0.1")
    config = build_config(read_preset("tiny"), *(parse_override(setting) for setting in settings))
    encoder, evaluate = (unstructure([s.settings(config)], YOUNGER)[0] for s in (ENCODER, EVALUATE))
    assert (encoder[1]["shift"], evaluate[0]["epsilon"]) == (2, 0.1)
    assert unstructure(config)["contrastive"]["layout_bands"] == 0  # the run's own file has every setting


def test_a_run_of_before_bands_has_none_and_a_new_one_has(tmp_path):
    config = build_config(read_preset("tiny"), parse_override("contrastive.layout_bands=12"))
    written = unstructure(config)
    del written["contrastive"]["layout_bands"]
    (tmp_path / "config.toml").write_text(tomli_w.dumps(written))
    assert load_config(tmp_path / "config.toml").contrastive.layout_bands == 0
    assert _resolve(None, tmp_path, None, {}, "tiny")[0].contrastive.layout_bands == 0
    save_config(tmp_path / "config.toml", config)
    assert load_config(tmp_path / "config.toml") == config
    assert build_config(read_preset("reference")).contrastive.layout_bands == 12


def test_without_a_loop_no_setting_of_rounds_counts():
    plain = build_config(read_preset("tiny"))
    other = build_config(read_preset("tiny"), parse_override("rounds.epsilon=0.5"))
    assert other.in_round(0) == plain.in_round(0) == plain


def test_rounds_share_the_steps_and_only_later_ones_see_their_settings():
    config = build_config(read_preset("atari100k"))
    shares = [config.in_round(index).collect.num_steps for index in range(config.rounds.count)]
    assert sum(shares) == config.collect.num_steps == 100_000
    other = build_config(read_preset("atari100k"), parse_override("rounds.agent_steps=7"))
    assert other.in_round(0) == config.in_round(0)
    assert other.in_round(1).train.agent.steps == 7


def test_steps_that_cannot_be_shared_evenly_are_played_by_the_first_of_the_later_rounds():
    changes = {"rounds": {"count": 4, "first_steps": 1000}, "collect": {"num_steps": 1302}}
    config = build_config(read_preset("tiny"), changes)
    assert [config.in_round(index).collect.num_steps for index in range(4)] == [1000, 101, 101, 100]
    changes["collect"]["num_steps"] = 1299
    with pytest.raises(ValueError, match="leaves 299 for 3 later rounds; each needs at least 100"):
        build_config(read_preset("tiny"), changes)


def test_a_dream_is_at_most_as_long_as_what_the_world_model_has_seen():
    dream = {"context": 4, "horizon": 12}
    assert build_config(read_preset("tiny"), {"windows": {"length": 16}, "dream": dream})
    with pytest.raises(ValueError, match=r"dream\.context \+ dream\.horizon is 16; it must be at most"):
        build_config(read_preset("tiny"), {"windows": {"length": 15}, "dream": dream})


@pytest.mark.parametrize(("horizon", "memory"), [(1, 4), (6, 7), (7, 7), (8, 8)])
def test_in_the_real_game_it_remembers_as_far_back_as_in_the_middle_of_a_dream(horizon, memory):
    assert DreamConfig(context=4, horizon=horizon).memory == memory


def test_the_encoder_is_trained_on_in_the_first_of_the_later_rounds():
    settings = ("rounds.count=4", "rounds.encoder_steps=30", "rounds.encoder_rounds=2")
    changes = [parse_override(setting) for setting in settings]
    config = build_config(read_preset("tiny"), {"rounds": {"first_steps": 1000}}, *changes)
    assert [config.in_round(index).rounds.encoder_steps for index in range(4)] == [0, 30, 30, 0]
    assert [config.in_round(index).train.encoder.steps for index in (1, 2)] == [30, 30]
    with pytest.raises(ValueError, match="encoder_rounds is -1; give at least 0"):
        build_config(read_preset("tiny"), parse_override("rounds.encoder_rounds=-1"))


def test_the_learning_rate_of_the_agent_may_fall_in_the_last_round_alone():
    settings = ("rounds.count=3", "rounds.first_steps=1000", 'train.agent.schedule="constant"')
    changes = [parse_override(setting) for setting in settings]
    config = build_config(read_preset("tiny"), *changes)
    assert {config.in_round(index).train.agent.schedule for index in range(3)} == {"constant"}
    anneals = build_config(read_preset("tiny"), *changes, parse_override("rounds.anneal=true"))
    assert [anneals.in_round(index).train.agent.schedule for index in range(3)] == [
        "constant",
        "constant",
        "cosine",
    ]
    schedules = [anneals.in_round(2).train.worldmodel.schedule, config.in_round(2).train.worldmodel.schedule]
    assert schedules[0] == schedules[1]  # nothing but the agent's


def test_the_last_round_may_be_longer():
    settings = ("rounds.count=3", "rounds.first_steps=1000", "rounds.finish=4", "rounds.worldmodel_steps=20")
    config = build_config(read_preset("tiny"), *map(parse_override, settings))
    rounds = [config.in_round(index) for index in range(3)]
    assert [found.train.worldmodel.steps for found in rounds] == [config.train.worldmodel.steps, 20, 80]
    for part, steps in (("predictors", 200), ("agent", 1000)):
        assert [getattr(found.train, part).steps for found in rounds[1:]] == [steps, 4 * steps]
    alone = build_config(read_preset("tiny"), parse_override("rounds.finish=4"))
    assert alone.in_round(0) == build_config(read_preset("tiny")).in_round(0)


def test_the_defaults_alone_are_a_run():
    assert build_config({}) == RunConfig()


def test_a_preset_leaves_alone_what_a_run_is_of(tmp_path):
    """Games, seed, and that its play is imported: it says how to train."""
    changes = {"games": ["breakout"], "seed": 3, "collect": {"policy": "imported"}, "agent": {"gamma": 0.5}}
    save_config(tmp_path / "config.toml", build_config(read_preset("tiny"), changes))
    config, _ = _resolve("hour", tmp_path, None, {}, "tiny")
    expected = build_config(read_preset("hour"), {"rounds": {"count": 1}})
    assert (config.games, config.seed, config.collect.policy) == (("breakout",), 3, "imported")
    assert (config.agent, config.rounds) == (expected.agent, expected.rounds)
    asked, _ = _resolve("hour", tmp_path, None, {"games": ["pong"], "seed": 1}, "tiny")
    assert (asked.games, asked.seed) == (("pong",), 1)
    own = tmp_path / "own.toml"
    own.write_text('games = ["qbert"]')
    config, _ = _resolve(str(own), tmp_path, None, {}, "tiny")
    assert (config.games, config.seed, config.collect.policy) == (("qbert",), 3, "imported")


@pytest.mark.parametrize("game", ["all", "train", "validation", "peak_memory_gib"])
def test_no_game_is_named_as_what_stands_beside_it_in_reports(game):
    with pytest.raises(ValueError, match=f"game '{game}' is a reserved name; give another name"):
        build_config(read_preset("tiny"), {"games": [game], "collect": {"policy": "imported"}})


def test_directories_are_named_after_all_of_a_name():
    config = build_config(read_preset("tiny"))
    assert default_directory(config, "from-lr0.1").name == "pong-from-lr0.1-0"
    assert default_directory(config, "mine/fast.toml").name == "pong-fast-0"


def test_a_change_need_only_suit_the_run_that_is_found(tmp_path, monkeypatch):
    """Two levels want two weights, which the preset that the run was begun with would refuse."""
    monkeypatch.chdir(tmp_path)
    begun = build_config(read_preset("tiny"), parse_override("hrvq.levels=2"))
    directory = default_directory(begun, "tiny")
    directory.mkdir(parents=True)
    save_config(directory / "config.toml", begun)
    change = parse_override("worldmodel.loss_weights=[1, 1]")
    config, layout = _resolve(None, None, None, change, "tiny")
    assert layout.root == directory
    assert config.worldmodel.loss_weights == (1.0, 1.0)
    with pytest.raises(ValueError, match="loss_weights"):
        _resolve("tiny", None, None, change, "tiny")


def test_a_finished_run_stays_up_to_date():
    """Hashes of the settings that each stage of `tiny` depends on.

    Where one changes, every finished run is trained anew from there: a setting that is new goes into
    `YOUNGER`, at the value that leaves things as they were. If what is learned has changed, so may the hash.
    """
    config = build_config(read_preset("tiny"))
    found = {
        stage.name: fingerprint(unstructure(stage.settings(stage.config(config)), YOUNGER))[:12]
        for stage in stages_of(config)
    }
    assert found == {
        "collect": "b7594872823e",
        "encoder": "c2146073c253",
        "hrvq": "43369ceff0ed",
        "worldmodel": "058c2df49732",
        "agent": "387a7f96901c",
        "decoder": "2ad1974bf0ba",
        "evaluate": "72673a6c087d",
    }


def test_a_preset_may_begin_with_the_mark_that_some_editors_write(tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text("seed = 3\n", encoding="utf-8-sig")
    assert read_preset(str(preset)) == {"seed": 3}


def test_blocks_of_features_are_the_levels_and_the_state():
    blocks = parse_override("critic.feature_blocks=[384, 384, 384]")
    build_config(read_preset("tiny"), blocks)
    state = merge(blocks, parse_override("dream.hidden_state=true"))
    own = merge(state, parse_override("critic.feature_blocks=[384, 384, 384, 128]"))
    build_config(read_preset("tiny"), own)
    other = merge(state, parse_override("critic.feature_blocks=[384, 384, 256, 256]"))
    with pytest.raises(ValueError, match=r"give the widths of the codes, \[384, 384, 384, 128\], or \[\]"):
        build_config(read_preset("tiny"), other)


def test_episodes_that_cannot_be_as_long_as_a_window_are_told_before_the_first_stage():
    def asked(*overrides):
        config = build_config(read_preset("tiny"), *map(parse_override, overrides))
        require_long_episodes(config)

    asked("collect.num_steps=624", "collect.num_envs=16")  # 39 actions and a final observation: 40 rows
    with pytest.raises(ValueError, match=r"windows\.clip is 40, and with collect.num_steps = 608 .* 39 rows"):
        asked("collect.num_steps=608", "collect.num_envs=16")
    with pytest.raises(ValueError, match=r"windows\.length is 20, and with rounds.first_steps = 100 "):
        asked("rounds.count=2", "rounds.first_steps=100", "collect.num_envs=10", "windows.clip=8")
    asked("collect.num_steps=100", "collect.policy=imported")
