"""What a user brings to a run: hooks that end it, fail, keep a state; schedules; Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

import whorl
from tests.cases import each
from tests.training.fingerprint import fingerprint
from whorl.errors import BadInput
from whorl.training import checkpoint

SHORT = {"total_steps": 2048, "num_envs": 2, "eval_every": 0, "checkpoint_every": 1024, "log_every": 1, "quiet": True,
         "feed": {"steps": 128}}  # fmt: skip


def train(runs, agent="ppo", **options):
    return whorl.train(agent, "CartPole-v1", runs=runs, **{**SHORT, **options})


def logged(run, name):
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


class At:
    """Does something once, at a step."""

    def __init__(self, step, what):
        self.step, self.what, self.calls = step, what, 0

    def begin(self, run):
        self.run = run

    def __call__(self, rollout, metrics):
        self.calls += 1
        return self.what() if self.run.steps == self.step else None

    def state(self):
        return {"calls": torch.tensor(self.calls)}, {}

    def load_state(self, arrays, numbers):
        self.calls = int(arrays["calls"])
        return True


def raises(error):
    def what():
        raise error

    return what


def test_stop_training_ends_a_run_as_true_does(tmp_path):
    for what in (lambda: True, raises(whorl.StopTraining())):
        run = train(tmp_path, hooks=[At(512, what)])
        assert run.steps == 512 and checkpoint.newest(run.checkpoints).name == "step_512"
        assert json.loads((run.path / "eval.json").read_text())["steps"] == 512

    class Enough(whorl.Logger):
        def log(self, step, metrics):
            if step >= 512:
                raise whorl.StopTraining

    run = train(tmp_path, loggers=[Enough()])
    assert run.steps == 512 and checkpoint.newest(run.checkpoints).name == "step_512"


def test_a_hook_that_raises_is_named_and_the_run_is_saved(tmp_path):
    whole = train(tmp_path / "a", hooks=[At(0, None)])
    with pytest.raises(ZeroDivisionError) as raised:
        train(tmp_path / "b", hooks=[lambda *_: None, At(512, lambda: 1 // 0)])
    run = whorl.last_run()
    (note,) = raised.value.__notes__
    assert (
        note.startswith("hook 2 of 2, At, raised this at 512 steps; the run was saved: whorl resume ")
        and str(run.path) in note
    )
    assert run.steps == 512 and checkpoint.newest(run.checkpoints).name == "step_512"
    whorl.resume(run.path, hooks=[At(0, None)], quiet=True)
    assert fingerprint(run.path) == fingerprint(whole.path)


def test_a_logger_that_raises_is_named_with_its_traceback_and_step(tmp_path, capsys):
    class Broken(whorl.Logger):
        def log(self, step, metrics):
            return metrics["nothing"]

    run = train(tmp_path, loggers=[Broken()])
    said = capsys.readouterr().err
    assert (
        "logger Broken failed in log at step 256 (KeyError: 'nothing')" in said and 'return metrics["nothing"]' in said
    )
    assert run.steps == 2048 and run.logs.failures == {"Broken": 8}


def test_none_is_no_hook_and_no_logger(tmp_path):
    assert train(tmp_path, hooks=None, loggers=None, total_steps=256).steps == 256


class Odd:
    def __call__(self, rollout):
        pass


class OddBegin(At):
    def begin(self):
        pass


class Forgets:
    def __call__(self, rollout, metrics):
        pass

    def state(self):
        return {"waited": 3}


class OddState(Forgets):
    def load_state(self, arrays, numbers):
        return True


def test_what_is_no_list_of_hooks_and_loggers_is_said_before_anything_is_written(tmp_path):
    for given, message in each([
        ({"hooks": At(0, None)}, r"hooks takes a list, hooks=\[...\]; got one At"),
        ({"loggers": whorl.Logger()}, "loggers takes a list, .* got one Logger"),
        ({"loggers": "tensorboard"}, "loggers takes a list, .* got one str"),
        ({"hooks": [At]}, r"hooks takes objects; At is a class: make one, hooks=\[At\(\)\]"),
        ({"loggers": [whorl.Logger]}, "loggers takes objects; Logger is a class"),
        ({"hooks": [3]}, "a hook is called with .*; int cannot be called"),
        ({"hooks": [Odd()]}, r"the hook Odd must take \(rollout, metrics\): too many positional arguments"),
        ({"hooks": [lambda: None]}, r"the hook .*<lambda> must take \(rollout, metrics\)"),
        ({"hooks": [OddBegin(0, None)]}, r"the hook OddBegin.begin must take \(run\)"),
        ({"hooks": [Forgets()]}, r"the hook Forgets.load_state must take \(arrays, numbers\): there is none"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            train(tmp_path, **given)
    assert not list(tmp_path.iterdir())
    path = train(tmp_path, total_steps=256).path
    with pytest.raises(BadInput, match="hooks takes a list"):
        whorl.resume(path, 512, hooks=At(0, None))


def test_a_state_is_two_dicts(tmp_path):
    with pytest.raises(BadInput, match=r"OddState.state must return \(arrays, numbers\), .* got a dict"):
        train(tmp_path, hooks=[OddState()])


def test_a_resumed_run_says_that_its_hooks_are_others(tmp_path, capsys):
    path = train(tmp_path, total_steps=256, hooks=[whorl.StopAt(1e6), At(0, None)]).path
    whorl.resume(path, 512, hooks=[whorl.StopAt(1e6), At(0, None)])
    assert "this run was saved with the hooks" not in capsys.readouterr().err
    whorl.resume(path, 768, hooks=[At(0, None)])
    assert "this run was saved with the hooks 'StopAt, At'; it goes on with 'At'\n" in capsys.readouterr().err


def test_two_hooks_of_a_kind_keep_their_states_and_another_list_is_refused(tmp_path):
    stop = At(1024, lambda: True)
    cut = train(tmp_path, hooks=[At(0, None), stop])
    one, two = At(0, None), At(1024, None)
    whorl.resume(cut.path, hooks=[one, two], quiet=True, total_steps=2048)
    assert one.calls == two.calls == 8
    with pytest.raises(
        BadInput, match="keep a state: At, At; now there are: At. Pass the same hooks in the same order"
    ):
        whorl.resume(cut.path, hooks=[one], quiet=True, total_steps=4096)
    with pytest.raises(BadInput, match="keep a state: At, At; now there are: none"):
        whorl.resume(cut.path, quiet=True, total_steps=4096)


def test_stop_at_goes_by_evaluation_or_by_the_window(tmp_path):
    run = train(tmp_path, stop_at=9.0, eval_every=512, eval_episodes=8)
    assert run.steps == 512 and run.settings.stop_at == 9.0 and logged(run, "eval/mean_reward")[0] >= 9.0
    run = train(tmp_path, hooks=[whorl.StopAt(1)], window=5)
    assert run.steps == 256 and run.window.last_mean >= 1
    assert train(tmp_path, stop_at=501, window=5).steps == 2048
    with pytest.raises(BadInput, match="StopAt takes a finite return, got nan"):
        whorl.StopAt(float("nan"))


def falling(progress):
    return 1e-3 * (1 - progress)


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_a_scheduled_rate_reaches_the_optimizer_and_the_log(tmp_path, agent):
    own = {"feed": {"warmup": 0}} if agent == "dqn" else {}
    run = train(tmp_path, agent, learning_rate=falling, total_steps=512, log_every=256, **own)
    assert float(run.agent.optimizer.param_groups[0]["lr"]) == pytest.approx(0.0, abs=1e-9)
    seen = logged(run, "train/learning_rate")
    assert seen == pytest.approx([1e-3, 5e-4] if agent == "ppo" else [5e-4, 0.0], rel=0.02, abs=1e-5)
    assert json.loads((run.path / "config.json").read_text())["scheduled"] == "learning_rate (falling)"


def test_a_schedule_resumes_to_the_same_bits_once_it_is_given_again(tmp_path):
    moving = {"learning_rate": falling, "clip_range": lambda progress: 0.2 - 0.1 * progress}
    whole = train(tmp_path / "a", **moving, hooks=[At(0, None)])
    assert whole.agent.config.clip_range == pytest.approx(0.1) and whole.config.anneal_steps == 0
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", **moving, hooks=[At(1536, raises(KeyboardInterrupt()))])
    cut = whorl.last_run().path
    with pytest.raises(
        BadInput, match="started with a function for learning_rate, clip_range, and a run folder holds none"
    ):
        whorl.resume(cut, quiet=True)
    again = [whorl.Schedule(name, function) for name, function in moving.items()]
    whorl.resume(cut, hooks=[*again, At(1536, lambda: None)], quiet=True)
    assert fingerprint(cut) == fingerprint(whole.path)


@pytest.mark.parametrize(
    ("agent", "options", "message"),
    [
        ("ppo", {"learning_rate": lambda p: -1.0}, "learning_rate must be at least 0, its schedule .* gave -1.0 at progress 0"),
        ("ppo", {"hidden": lambda p: 1}, r"ppo reads hidden once, when it is built; what a schedule can move: learning_rate, .*clip_range"),
        ("ppo", {"clip_rage": lambda p: 1}, "has no option 'clip_rage'; did you mean 'clip_range'"),
        ("ppo", {"clip_range": lambda p: 0.1, "compile": True}, "clip_range is a constant of compiled steps"),
        ("ppo", {"learning_rate": falling, "anneal_steps": 2048}, "anneal_steps = 2,048 anneals the learning rate that is scheduled"),
        ("td", {"learning_rate": falling}, "td reads learning_rate once, .* can move: nothing"),
        ("a3c", {"learning_rate": falling}, "the workers of a3c have an agent each"),
        ("ppo", {"hooks": [3]}, "a hook is called with"),
    ],
)  # fmt: skip
def test_what_no_schedule_can_do_is_said_before_anything_is_written(tmp_path, agent, options, message):
    env = "CartPole-v1" if agent != "td" else "RandomWalk-v0"
    with pytest.raises(BadInput, match=message):
        whorl.train(agent, env, runs=tmp_path, quiet=True, total_steps=2048, **options)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_a_keyboard_interrupt_after_the_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, hooks=[At(512, lambda: signal.raise_signal(signal.SIGINT))])
    run = whorl.last_run()
    assert (
        run.steps == 512
        and checkpoint.newest(run.checkpoints).name == "step_512"
        and not (run.path / "eval.json").exists()
    )


def test_ctrl_c_on_the_command_line_ends_with_130_and_says_how_to_go_on(tmp_path):
    words = ["train", "ppo", "CartPole-v1", "--total-steps", "10000000", "--eval-every", "0", "--runs", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from whorl.apps.cli import main; main()", *words], stderr=subprocess.PIPE, text=True
    )
    while not any(file.stat().st_size for file in tmp_path.glob("*/*/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with: whorl resume" in said and "Traceback" not in said
