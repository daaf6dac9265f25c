"""A run directory: where each artifact is, and the manifest that says what made it."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atari_data import LOCK_FILE, FrameStore

from wm.files import sha256, write_json
from wm.versions import package_versions

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """The paths of a run.

    The last round's artifacts are at the run's root, an earlier round's under ``rounds/NN``. Real play is
    stored once, with all rounds together in order.
    """

    root: Path
    earlier_round: int | None = None  # None: the last round, or the only one

    @property
    def place(self) -> Path:
        """Where the round's own artifacts are."""
        return self.root if self.earlier_round is None else self.root / "rounds" / f"{self.earlier_round:02d}"

    @property
    def start(self) -> "Layout":
        """The layout of the parts that the run took over from another run."""
        return Layout(self.root / "start")

    def data(self, game: str) -> Path:
        """Directory of the game's frame shards."""
        return self.root / "data" / game

    def frames(self, game: str) -> FrameStore:
        """The game's real play up to and including this round."""
        rounds = None if self.earlier_round is None else self.earlier_round + 1
        return FrameStore.open(self.data(game), rounds=rounds)

    def embeddings(self, game: str) -> Path:
        """The game's embeddings, row for row with its frames."""
        return self.place / "embeddings" / f"{game}.safetensors"

    def tokens(self, game: str) -> Path:
        """The game's tokens with the trajectory columns."""
        return self.place / "tokens" / f"{game}.safetensors"

    def checkpoint(self, stage: str) -> Path:
        """Where an unfinished stage keeps what it needs to resume."""
        return self.root / "checkpoints" / f"{stage}.pt"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.toml"

    @property
    def encoder(self) -> Path:
        """Encoder weights and the games' backgrounds."""
        return self.place / "encoder.safetensors"

    @property
    def decoder(self) -> Path:
        """View-only decoder weights; there is only one decoder, of the run's final round."""
        return self.root / "decoder.safetensors"

    @property
    def hrvq(self) -> Path:
        """Codebooks."""
        return self.place / "hrvq.safetensors"

    @property
    def worldmodel(self) -> Path:
        """World model weights."""
        return self.place / "worldmodel.safetensors"

    @property
    def agent(self) -> Path:
        """Actor, critic and predictor weights."""
        return self.place / "agent.safetensors"

    @property
    def choice(self) -> Path:
        """Which round's agent is the run's."""
        return self.root / "choice.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step."""
        return self.root / "metrics.jsonl"

    @property
    def manifest(self) -> Path:
        """What made each artifact."""
        return self.root / "manifest.json"

    @property
    def evaluation(self) -> Path:
        """Scores in the real game."""
        return self.root / "evaluation.json"


def require_writable(directory: Path) -> None:
    """Create the directory, or say why that is not possible.

    Raises:
        ValueError: a file or a dangling link is in the way, or the directory holds something else than a run.
        PermissionError: the directory is not writable.
    """
    if directory.is_symlink() and not directory.exists():
        raise ValueError(
            f"{directory} is a link to {directory.readlink()}, which does not exist; make that directory, or "
            "give another"
        )
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; a run is a directory")
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise PermissionError(13, "no permission", str(directory))
    ours = (LOCK_FILE, ".config.toml.*.tmp")  # the latter of a process that was killed before it was renamed
    foreign = any(not any(path.match(name) for name in ours) for path in directory.iterdir())
    if foreign and not Layout(directory).config.exists():
        raise ValueError(
            f"{directory} is not empty and holds no run; give a new directory or an existing run's"
        )


def remove_leftovers(root: Path) -> None:
    """Delete the unfinished files of processes that were killed; only for the sole writer of the run."""
    for pattern in (".*.safetensors.*.tmp", ".*.pt.*.tmp", ".*.toml.*.tmp", ".*.json.*.tmp"):
        for path in root.rglob(pattern):
            path.unlink(missing_ok=True)


@dataclass
class StageRecord:
    """What the manifest keeps about a finished stage.

    Args:
        fingerprint: hash of the stage's settings, seed and input artifacts.
        artifacts: path in the run -> sha256, size in bytes, modification time in ns.
        parents: path in the run -> sha256 of what the stage read.
        metrics: the stage's final numbers, for reports.
    """

    fingerprint: str
    artifacts: dict[str, dict[str, Any]]
    parents: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""
    device: str = ""
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def unseen(self, games: Iterable[str]) -> list[str]:
        """Those of the games that are missing in the metrics of a stage of `stage.BY_GAME`."""
        by_game = self.metrics.get("validation", self.metrics)  # the world model's are under its validation
        return [game for game in games if game not in by_game]


class Manifest:
    """The stages a run has finished, read from and written to ``manifest.json``."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.stages: dict[str, StageRecord] = {}
        self.set_aside: dict[str, StageRecord] = {}
        self._noted = False
        self.read()

    def read(self) -> None:
        """Read the file as it is now.

        Raises:
            ValueError: it is damaged, or written by a newer version.
        """
        layout = self.layout
        if layout.manifest.exists():
            try:
                data = json.loads(layout.manifest.read_text(encoding="utf-8"))
                schema = int(data["schema"])
                if schema <= MANIFEST_SCHEMA:
                    self.stages, self.set_aside = (
                        {name: StageRecord(**record) for name, record in records.items()}
                        for records in (data["stages"], data.get("set_aside", {}))
                    )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{layout.manifest} is damaged ({error}); delete it and the stages run again"
                ) from error
            if schema > MANIFEST_SCHEMA:
                raise ValueError(
                    f"{layout.manifest} has schema {schema}, but this version of wm reads up to "
                    f"{MANIFEST_SCHEMA}; update wm"
                )

    def record(self, stage: str, record: StageRecord) -> None:
        """Add a finished stage and write the manifest.

        A file belongs to the stage that wrote it last: stages that wrote one of the same files before (as
        with another number of rounds or shards) are forgotten, and run again if they are part of the run.
        """
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        record.versions = package_versions() | {"python": platform.python_version()}
        made = record.artifacts.keys()
        self.stages = {
            name: known for name, known in self.stages.items() if not made & known.artifacts.keys()
        }
        self.stages[stage] = record
        self.set_aside.pop(stage, None)
        self._write()

    def begin(self, stage: str) -> None:
        """Note that a stage starts: the record of what it made before, if any, is set aside."""
        if stage in self.stages:
            self.set_aside[stage] = self.stages.pop(stage)
            self._write()

    def reinstate(self, stage: str, fingerprint: str) -> bool:
        """Restore what a stage made before it was restarted and then stopped, if it fits and still exists."""
        record = self.set_aside.get(stage)
        if record is None or record.fingerprint != fingerprint:
            return False
        paths = [self.layout.root / key for key in record.artifacts]
        found = self.describe(path for path in paths if path.is_file())
        if _digests(found) != _digests(record.artifacts):
            return False
        record.artifacts = found
        self.stages[stage] = self.set_aside.pop(stage)
        self._write()
        return True

    def restore(self, stage: str, record: StageRecord) -> None:
        """Put back a record that was forgotten, as it was."""
        self.stages[stage] = record
        self._write()

    def forget(self, stages: Iterable[str]) -> None:
        """Drop records, so that these stages run again, whatever they have made."""
        known = [stage for stage in stages if stage in self.stages or stage in self.set_aside]
        for stage in known:
            self.stages.pop(stage, None)
            self.set_aside.pop(stage, None)
        if known:
            self._write()

    def describe(self, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
        """sha256, size and modification time of each file, by its path in the run."""
        described = {}
        for path in sorted(paths):
            stat = path.stat()
            described[path.relative_to(self.layout.root).as_posix()] = {
                "sha256": sha256(path),
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
            }
        return described

    def check(self, stage: str) -> list[str]:
        """Artifacts of a recorded stage that are missing. Changed ones are an error.

        Hashing gigabytes takes seconds, so a file with the recorded size and time counts as unchanged. The
        time of a file that had to be hashed is noted: in a copied run all times differ.

        Raises:
            ValueError: an artifact is not what the stage wrote (truncated, replaced, edited).
        """
        missing = []
        for key, known in self.stages[stage].artifacts.items():
            path = self.layout.root / key
            if not path.exists():
                missing.append(key)
                continue
            stat = path.stat()
            if (stat.st_size, stat.st_mtime_ns) == (known["size"], known["mtime_ns"]):
                continue
            if stat.st_size != known["size"] or sha256(path) != known["sha256"]:
                raise ValueError(
                    f"{path} is not the file that stage {stage} wrote (its sha256 differs); "
                    "put the original back, or delete the file and the stage runs again"
                )
            known["mtime_ns"] = stat.st_mtime_ns
            self._noted = True
        return missing

    def keep_notes(self) -> None:
        """Write down the times that ``check`` has noted, if any; only for the sole writer of the run."""
        if self._noted:
            self._write()

    def hashes(self, stages: Iterable[str]) -> dict[str, str]:
        """path -> sha256 of every artifact these stages recorded."""
        return {
            key: digest for stage in stages for key, digest in _digests(self.stages[stage].artifacts).items()
        }

    def _write(self) -> None:
        stages, aside = (
            {name: vars(record) for name, record in records.items()}
            for records in (self.stages, self.set_aside)
        )
        data = {"schema": MANIFEST_SCHEMA, "stages": stages, "set_aside": aside}
        write_json(self.layout.manifest, data)
        self._noted = False


def _digests(artifacts: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {key: known["sha256"] for key, known in artifacts.items()}


def fingerprint(value: Any) -> str:
    """Hash of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
