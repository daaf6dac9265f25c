import importlib
import json
import math
import os
import shutil
import signal

import pytest
import torch
from rich.console import Console
from torch import nn
from wm.distributed import ALONE, Team
from wm.fit import fit
from wm.reporter import Reporter
from wm.sections import FitConfig

CPU = torch.device("cpu")


class Regression(nn.Module):
    """Learns y = 3x with dropout, so that the random state matters; can interrupt or break itself."""

    def __init__(self, interrupt_at=None, nan_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(4, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.interrupt_at, self.nan_at = interrupt_at, nan_at

    def forward(self, batch):
        x, y = batch
        loss = (self.line(nn.functional.dropout(x, 0.3, self.training)) - y).square().mean()
        if self.nan_at is not None and self.steps >= self.nan_at:
            loss = loss * math.nan
        return loss, {"error": loss.detach()}

    def after_step(self):
        self.steps += 1
        if self.interrupt_at == int(self.steps):
            os.kill(os.getpid(), signal.SIGINT)


def batches(index):
    rng = torch.Generator().manual_seed(index)
    x = torch.randn(16, 4, generator=rng)
    return x, 3 * x.sum(1, keepdim=True)


def train(path, objective, steps=30, group=1, setting="train.toy", team=ALONE, **settings):
    config = FitConfig(steps=steps, learning_rate=0.05, log_every=1, precision="float32", **settings)
    reporter = Reporter(Console(quiet=True), path / "metrics.jsonl")
    trained = fit(
        objective,
        batches,
        config,
        stage="toy",
        seed=1,
        device=CPU,
        reporter=reporter,
        checkpoint=path / "toy.pt",
        epoch_size=16,
        group=group,
        team=team,
        setting=setting,
    )
    return trained, objective


def test_it_learns_and_logs_a_line_a_step(tmp_path):
    trained, _ = train(tmp_path, Regression(), steps=200)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 200
    assert '"stage": "toy", "step": 0' in lines[0]
    assert trained["error"] < 20  # from 36, the variance of y; dropout leaves the rest


def test_a_metric_that_nothing_defines_now_and_then_is_the_mean_of_the_rest(tmp_path):
    class Recall(Regression):
        def forward(self, batch):
            loss, _ = super().forward(batch)
            odd = int(self.steps) % 2
            return loss, {"recall": float(self.steps) if odd else math.nan, "never": math.nan}

    trained, _ = train(tmp_path, Recall(), steps=40)
    assert trained["recall"] == 38  # of steps 36 to 39
    assert math.isnan(trained["never"])


def test_a_run_interrupted_at_any_step_ends_like_one_that_was_not(tmp_path):
    (tmp_path / "whole").mkdir()
    measured, whole = train(tmp_path / "whole", Regression())
    for stop in (1, 7, 29, 30):
        path = tmp_path / str(stop)
        path.mkdir()
        with pytest.raises(KeyboardInterrupt):
            train(path, Regression(interrupt_at=stop))
        trained, resumed = train(path, Regression())
        assert trained == measured, stop
        assert int(resumed.steps) == 30
        assert torch.equal(resumed.line.weight, whole.line.weight), stop


def test_the_checkpoint_of_a_finished_fit_is_not_written_again(tmp_path):
    """On a nearly full disk there may be no room for it twice."""
    train(tmp_path, Regression(), steps=3)
    before = (tmp_path / "toy.pt").stat()
    train(tmp_path, Regression(), steps=3)
    assert (tmp_path / "toy.pt").stat() == before


def test_an_interruption_in_an_unfinished_last_group_is_one_too(tmp_path):
    """The steps end within a dream's minibatches; nobody would stop there for the end of the group."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Regression(interrupt_at=10), steps=11, group=4)
    _, resumed = train(tmp_path, Regression(), steps=11, group=4)
    assert int(resumed.steps) == 11


def test_a_few_steps_are_measured_as_well(tmp_path):
    trained, _ = train(tmp_path, Regression(), steps=2)
    assert trained["error"] > 0


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As in a job that a script runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, done = train(tmp_path, Regression(interrupt_at=3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert int(done.steps) == 30


def test_accumulating_two_batches_equals_one_joined_batch(tmp_path):
    class Plain(Regression):
        def forward(self, batch):
            x, y = batch
            loss = (self.line(x) - y).square().mean()
            return loss, {}

    def joined(index):
        parts = [batches(2 * index), batches(2 * index + 1)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    _, two = train(tmp_path, Plain(), steps=10, accumulation=2)
    config = FitConfig(steps=10, learning_rate=0.05, precision="float32")
    one = Plain()
    reporter = Reporter(Console(quiet=True))
    fit(
        one,
        joined,
        config,
        stage="toy",
        seed=1,
        device=CPU,
        reporter=reporter,
        checkpoint=tmp_path / "one.pt",
        epoch_size=16,
    )
    torch.testing.assert_close(one.line.weight, two.line.weight)


def test_numbers_of_a_step_are_those_of_all_its_batches(tmp_path):
    class Counts(Regression):
        def forward(self, batch):
            loss, _ = super().forward(batch)
            self.seen = getattr(self, "seen", -1) + 1
            return loss, {"seen": torch.tensor(float(self.seen))}

    train(tmp_path, Counts(), steps=2, accumulation=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["seen"] for line in lines] == [0.5, 2.5]
    (tmp_path / "toy.pt").unlink()

    class BreaksInItsFirst(Counts):
        def forward(self, batch):
            loss, metrics = super().forward(batch)
            return loss * (math.inf if self.seen == 2 else 1), metrics

    with pytest.raises(ValueError, match="the loss or its gradient is inf by step 1;"):
        train(tmp_path, BreaksInItsFirst(), steps=2, accumulation=2)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Regression(interrupt_at=5))
    good = (tmp_path / "toy.pt").read_bytes()
    with pytest.raises(
        ValueError, match=r"nan by step 8; lower train\.toy\.learning_rate .* restarts the stage$"
    ):
        train(tmp_path, Regression(nan_at=8))
    with pytest.raises(ValueError, match=r"nan by step 8; give another --seed$"):
        train(tmp_path, Regression(nan_at=8), setting="")
    assert (tmp_path / "toy.pt").read_bytes() == good


@pytest.mark.parametrize("step", [0, 29])
def test_a_gradient_that_is_not_finite_is_never_stepped_along(tmp_path, step):
    """At the last step no later loss would show it."""

    class Cusp(Regression):
        def forward(self, batch):
            loss, metrics = super().forward(batch)
            if self.steps == step:
                loss = loss + (0 * self.line.weight).sqrt().sum()  # 0, with a slope of 0 times infinity
            return loss, metrics

    with pytest.raises(ValueError, match=f"its gradient is nan by step {step};"):
        train(tmp_path, Cusp())
    assert not (tmp_path / "toy.pt").exists()


def test_what_was_begun_without_a_scaler_goes_on_with_one(tmp_path, monkeypatch):
    """A job that is moved to a GPU without bfloat16 trains in float16 there."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Regression(interrupt_at=12))
    monkeypatch.setattr(importlib.import_module("wm.fit"), "autocast_dtype", lambda *_: torch.float16)
    _, moved = train(tmp_path, Regression())
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert moved.steps == state["step"] == 30
    assert state["scaler"]["scale"] > 0


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "toy.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"toy\.pt cannot be read as this stage's checkpoint"):
        train(tmp_path, Regression())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_checkpoint_that_does_not_fit_in_memory_is_not_called_damaged(tmp_path, monkeypatch, error):
    train(tmp_path, Regression())

    def full(*_):
        raise error

    monkeypatch.setattr(Regression, "load_state_dict", full)
    with pytest.raises(type(error)):
        train(tmp_path, Regression())


class Slope(nn.Module):
    """A weight whose loss has a slope of its own at every step."""

    def __init__(self, slopes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.slopes = iter(slopes)

    def forward(self, batch):
        return next(self.slopes) * self.weight, {}

    def after_step(self):
        pass


def test_the_gradient_of_a_step_is_the_mean_of_its_batches(tmp_path):
    """AdamW would hide a factor: its steps have no unit."""
    train(tmp_path, Slope([3.0, 1.0]), steps=1, accumulation=2)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["grad_norm"] == pytest.approx(2.0)


@pytest.mark.parametrize(("clip", "slopes"), [(2.0, (2.0, -0.5, 1.0)), (0.0, (3.0, -0.5, 1.0))])
def test_three_steps_by_hand(tmp_path, clip, slopes):
    """AdamW, written out, along slopes clipped or not, in the warm-up."""
    how = {"warmup": 4, "betas": (0.8, 0.9), "weight_decay": 0.3, "clip": clip}
    _, found = train(tmp_path, Slope([3.0, -0.5, 1.0]), steps=3, **how)
    weight, first, second = 1.0, 0.0, 0.0
    for step, slope in enumerate(slopes, 1):
        rate = 0.05 * step / 4
        first, second = 0.8 * first + 0.2 * slope, 0.9 * second + 0.1 * slope**2
        weight *= 1 - rate * 0.3
        weight -= rate * (first / (1 - 0.8**step)) / math.sqrt(second / (1 - 0.9**step))
    assert found.weight.item() == pytest.approx(weight, rel=1e-5)


def test_every_step_learns_with_numbers_of_its_own(tmp_path):
    """Else dropout would hide the same inputs for ever; what comes in evaluation mode drops some too."""

    class Draws(Regression):
        def forward(self, batch):
            drawn.append((float(torch.rand(())), self.training))
            return super().forward(batch)

    drawn = []
    train(tmp_path, Draws().eval(), steps=5)
    assert len(set(drawn)) == 5
    assert all(training for _, training in drawn)


class Alike(Team):
    """A team whose members all train on the whole batch."""

    def share(self, batch):
        return batch

    def wrap(self, module, device):
        return module

    def any(self, flag):
        return flag


def test_every_process_of_a_team_draws_numbers_of_its_own(tmp_path):
    class Draws(Regression):
        def forward(self, batch):
            drawn[-1].add(float(torch.rand(())))
            return super().forward(batch)

    drawn = []
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        drawn.append(set())
        train(tmp_path / str(rank), Draws(), steps=3, team=Alike(rank, 2))
    assert drawn[0].isdisjoint(drawn[1])


def test_a_process_that_dies_goes_on_from_the_last_whole_group(tmp_path, monkeypatch):
    """Checkpoints come now and then, here as often as they may."""

    class Dies(Regression):
        def forward(self, batch):
            if self.steps == 7:
                raise MemoryError
            return super().forward(batch)

    (tmp_path / "whole").mkdir()
    measured, whole = train(tmp_path / "whole", Regression(), group=4)
    with monkeypatch.context() as patch:
        patch.setattr("wm.fit.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        with pytest.raises(MemoryError):
            train(tmp_path, Dies(), group=4)
    assert torch.load(tmp_path / "toy.pt")["step"] == 4
    trained, resumed = train(tmp_path, Regression(), group=4)
    assert trained == measured
    assert torch.equal(resumed.line.weight, whole.line.weight)


def test_an_interruption_while_the_last_checkpoint_is_written_is_heard(tmp_path, monkeypatch):
    """Nobody asks for it at the end of a step: there is no further one."""
    module = importlib.import_module("wm.fit")
    save, saved = module._Checkpoint.save, []

    def slow(*what):
        save(*what)
        saved.append(what)
        if len(saved) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        patch.setattr(module._Checkpoint, "save", slow)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, Regression(), steps=3)
    _, done = train(tmp_path, Regression(interrupt_at=1), steps=3)  # there is no step left to interrupt
    assert int(done.steps) == 3


def test_learning_rate_warms_up_then_follows_the_schedule():
    config = FitConfig(learning_rate=1.0, warmup=4, schedule="cosine")
    rates = [config.rate(step, 104) for step in range(104)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.55)  # half way between the peak and its tenth
    assert rates[103] == pytest.approx(0.1, abs=1e-3)
    assert FitConfig(learning_rate=1.0, schedule="constant").rate(99, 100) == 1.0


def test_epochs_become_steps():
    assert FitConfig(steps=0, epochs=2, batch_size=10, accumulation=2).resolve_steps(1000) == 100
    assert FitConfig(steps=7).resolve_steps(1000) == 7
    assert FitConfig(steps=0, epochs=1, batch_size=10).resolve_steps(11) == 2  # every row is seen
    assert FitConfig(steps=0, epochs=0.1, batch_size=10).resolve_steps(0) == 1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"betas": (0.9, 1.0)}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitConfig(**wrong)


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_a_compiled_step_learns_the_same(tmp_path):
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.line = nn.Linear(4, 1)

        def forward(self, batch):
            loss = (self.line(batch[0]) - batch[1]).square().mean()
            return loss, {"error": loss.detach()}

        def after_step(self):
            pass

    for name in ("plain", "compiled"):
        (tmp_path / name).mkdir()
    plain, compiled = (
        train(tmp_path / name, Line(), compile=name == "compiled")[1].line.weight.detach()
        for name in ("plain", "compiled")
    )
    torch.testing.assert_close(plain, compiled, atol=1e-5, rtol=0)


def test_no_compiler_is_one_sentence(tmp_path, monkeypatch):
    class NoCompilerError(RuntimeError):
        pass

    NoCompilerError.__module__ = "torch._inductor.exc"

    def broken(module):
        def forward(batch):
            raise NoCompilerError("no g++\nand more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ValueError, match=r"torch.compile does not work here \(no g\+\+\); install"):
        train(tmp_path, Regression(), compile=True)
