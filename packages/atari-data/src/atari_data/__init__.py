"""Atari games as datasets: collection, episodes on disk, RAM labels, windows."""

from atari_data.collect import CollectResult, collect
from atari_data.episodes import Episodes, Moment, play_episodes
from atari_data.games import (
    ACTION_NAMES,
    NUM_ACTIONS,
    action_mask,
    check_game,
    check_own_name,
    games,
    minimal_actions,
)
from atari_data.labels import labelled_games, labels, state_variables
from atari_data.locks import LOCK_FILE, only_writer
from atari_data.playing import Tick, environment_seeds, play
from atari_data.policies import EpsilonPolicy, Policy, RandomPolicy, StickyRandomPolicy
from atari_data.protocol import PROTOCOLS, Protocol
from atari_data.recording import import_recording
from atari_data.sampling import MultiGameSampler
from atari_data.scores import GameInfo, game_info, human_normalized, published_scores, score_sources
from atari_data.shards import shard_paths
from atari_data.store import FrameStore
from atari_data.video import write_video
from atari_data.windows import final_rows, first_rows, lost_lives, split_episodes, window_starts

__all__ = [
    "ACTION_NAMES",
    "LOCK_FILE",
    "NUM_ACTIONS",
    "PROTOCOLS",
    "CollectResult",
    "Episodes",
    "EpsilonPolicy",
    "FrameStore",
    "GameInfo",
    "Moment",
    "MultiGameSampler",
    "Policy",
    "Protocol",
    "RandomPolicy",
    "StickyRandomPolicy",
    "Tick",
    "action_mask",
    "check_game",
    "check_own_name",
    "collect",
    "environment_seeds",
    "final_rows",
    "first_rows",
    "game_info",
    "games",
    "human_normalized",
    "import_recording",
    "labelled_games",
    "labels",
    "lost_lives",
    "minimal_actions",
    "only_writer",
    "play",
    "play_episodes",
    "published_scores",
    "score_sources",
    "shard_paths",
    "split_episodes",
    "state_variables",
    "window_starts",
    "write_video",
]
