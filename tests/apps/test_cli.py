"""The command line as a user types it: results, exit codes, messages, nothing written on bad input."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import whorl
from tests.training import run_folders
from whorl import files, options
from whorl.apps.board import entry
from whorl.apps.cli import main, parse
from whorl.training import compatibility
from whorl.training.catalog import AGENTS, find
from whorl.training.settings import NAMED, Settings

SMALL = ["--total-steps", "512", "--eval-episodes", "10", "--num-envs", "4"]
TRAIN = ["train", "ppo", "CartPole-v1", *SMALL, "--agent.feed.steps", "64"]


def call(capfd, *arguments):
    """(exit code, standard output, standard error)."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    main([*TRAIN, "--runs", str(runs), "--quiet"])
    return runs / "last"


def test_train_ends_with_one_json_line(capfd, tmp_path):
    code, out, err = call(capfd, *TRAIN, "--runs", tmp_path, "--json", "--agent.learning-rate", "1e-2")
    assert code == 0 and "environment: CartPole-v1 (native, 4 at once, on cpu)" in err
    line = json.loads(out.splitlines()[-1])
    assert set(line) == {"run", "steps", "seconds", "steps_per_second", "evaluation"}
    assert set(line["evaluation"]) == {"mean", "std", "episodes"} and line["evaluation"]["episodes"] == 10
    assert line["steps"] == 512 and line["steps_per_second"] == pytest.approx(512 / line["seconds"])
    config = json.loads((Path(line["run"]) / "config.json").read_text())
    assert config["config"]["learning_rate"] == 1e-2 and config["config"]["feed"]["steps"] == 64
    assert config["config"]["entropy_weight"] == 0.01  # the preset's


def test_episodes_limits_windows_and_videos_are_options(capfd, tmp_path):
    options = ["--total-episodes", 5, "--max-episode-steps", 9, "--window", 3, "--video-every", 2, "--eval-every", 0]
    names = ["train", "random", "CartPole-v1", "--num-envs", 1, "--total-steps", 4096]
    code, out, _ = call(capfd, *names, *options, "--runs", tmp_path, "--json")
    path = Path(json.loads(out.splitlines()[-1])["run"])
    assert code == 0 and json.loads((path / "eval.json").read_text())["episodes"] >= 5
    config = json.loads((path / "config.json").read_text())
    assert (config["total_episodes"], config["max_episode_steps"], config["window"], config["video_every"]) == (
        5,
        9,
        3,
        2,
    )
    assert list((path / "video").glob("episode_*.gif"))


@pytest.mark.parametrize(
    ("before", "names", "fields"),
    [
        ("--seed 1 --quiet --agent.discount 0.9 --num-envs 2", "ppo CartPole-v1", {"discount": 0.9}),
        ("--agent.normalize-observation", "ppo CartPole-v1", {"normalize_observation": True}),
        ("--agent.no-double --compile", "dqn CartPole-v1", {"double": False}),
        ("--agent.sde-log-std -2.5", "sac Pendulum-v1", {"sde_log_std": -2.5}),
        ("--agent.hidden 32 16", "ppo CartPole-v1", {"hidden": (32, 16)}),
        ("--agent.hidden", "ppo CartPole-v1", {"hidden": ()}),
        ("--agent.hidden=8 --name dqn", "ppo CartPole-v1", {"hidden": (8,)}),
        ("--agent.discount=.5 --agent.feed.relabel random", "dqn BitFlipping8-v0", {"discount": 0.5}),
    ],
)
def test_options_may_stand_before_the_names(before, names, fields):
    command = parse(["train", *before.split(), *names.split(), "--total-steps", "256"])
    after = parse(["train", *names.split(), *before.split(), "--total-steps", "256"])
    assert vars(command) == vars(after) and command.settings.total_steps == 256
    assert [command.algorithm, command.environment] == names.split()
    assert {name: getattr(command.agent, name) for name in fields} == fields


def test_the_order_of_a_sweeps_words_is_free():
    grid = ["--grid", "discount=.9,.8", "--grid", "num_envs=1,2"]
    command = parse(["sweep", *grid, "--seeds", "3", "ppo", "CartPole-v1", "--threads", "2"])
    assert (command.grid, command.seeds, command.settings.threads) == (("discount=.9,.8", "num_envs=1,2"), 3, 2)
    assert (command.algorithm, command.environment) == ("ppo", "CartPole-v1")


def test_every_option_of_a_run_is_on_the_command_line_with_help_and_bounds(capfd):
    trained, swept = (
        " ".join(call(capfd, command, "dqn", "CartPole-v1", "--help")[1].replace("│", " ").split())
        for command in ("train", "sweep")
    )
    for field in options.fields(Settings):
        option = f"--{field.name.replace('_', '-')} "
        assert (option in trained.replace(",", " ")) == (
            field.name not in NAMED or field.name in ("encoder", "transforms")
        )
        assert (option in swept.replace(",", " ")) == (
            field.name not in (*NAMED, "seed") or field.name in ("encoder", "transforms")
        )
    steps = find("dqn", "CartPole-v1").total_steps
    for words in (
        "--num-envs INT >= 1 environments stepped together (default:",
        f"--total-steps INT >= 1 how far the run goes (default: {steps})",
        "--keep-checkpoints INT >= 1|all newest checkpoints that stay",
        "--max-episode-steps None|INT >= 1 a time limit",
        "--quiet, --no-quiet print nothing but errors",
        "--agent.feed.alpha FLOAT in [0, 1] 0 = uniform (default: 0.6)",
        "--agent.feed.storage {memory,memmap,frames} memmap: on disk",
    ):
        assert words in trained


def test_values_of_options():
    """What is not given comes from the preset of the pair; the feed is the agent's own."""
    given, preset = parse(["train", "dqn", "CartPole-v1"]), find("dqn", "CartPole-v1")
    assert given.settings == Settings(num_envs=preset.num_envs, total_steps=preset.total_steps)
    assert given.agent == preset.config
    kept = [parse(["train", "random", "CartPole-v1", "--keep-checkpoints", n]).settings for n in ("3", "all")]
    assert [settings.keep_checkpoints for settings in kept] == [3, "all"]
    assert parse(["train", "a3c", "CartPole-v1", "--agent.feed.workers", "3"]).agent.feed.workers == 3


def test_a_whole_number_may_be_written_with_an_exponent():
    words = ["--total-steps", "1e5", "--eval-every", "2e3", "--keep-checkpoints", "1e1", "--agent.hidden", "1e2", "64"]
    command = parse(["train", "ppo", "CartPole-v1", *words])
    settings = command.settings
    assert (settings.total_steps, settings.eval_every, settings.keep_checkpoints) == (100_000, 2000, 10)
    assert command.agent.hidden == (100, 64) and type(settings.total_steps) is int
    assert parse(["eval", "x", "--episodes", "1e2"]).episodes == 100
    assert vars(parse(["train", *words, "ppo", "CartPole-v1"])) == vars(command)


def test_what_is_offered_for_pasting_can_be_pasted(capfd, tmp_path):
    """Where a path has a space, and worse."""
    place = tmp_path / "two words; it's $HOME"
    call(capfd, "train", "random", "CartPole-v1", *SMALL, "--eval-every", 0, "--runs", place, "--quiet")
    code, _, err = call(capfd, "resume", place / "last")
    words = shlex.split(err.split("give more: ")[1])
    assert code == 2 and words[:2] == ["whorl", "resume"] and words[3:] == ["--total-steps", "1024"]
    assert call(capfd, *words[1:], "--quiet")[0] == 0
    code, _, err = call(capfd, "board", place, "--export", tmp_path / "site")
    assert code == 2 and shlex.split(err.split("`")[1])[-1] == str(place)


def test_quiet_and_switched_off(capfd, tmp_path):
    options = ["--runs", tmp_path, "--quiet", "--json", "--eval-every", 0, "--checkpoint-every", 0, "--name", "x"]
    code, out, err = call(capfd, "train", "random", "CartPole-v1", *SMALL, *options)
    line = json.loads(out)
    assert code == 0 and err == "" and line["evaluation"] is None
    assert Path(line["run"]).name == "x" and not (tmp_path / "last" / "checkpoints").exists()


def test_eval(capfd, run):
    for which in ("best", "last", "512"):
        code, out, _ = call(capfd, "eval", run, "--episodes", 20, "--json", "--which", which)
        line = json.loads(out.splitlines()[-1])
        assert code == 0 and set(line) == {"mean", "std", "min", "max", "episodes"} and line["episodes"] == 20
    again = json.loads(call(capfd, "eval", run, "--episodes", 20, "--json", "--which", "512")[1].splitlines()[-1])
    other = json.loads(
        call(capfd, "eval", run, "--episodes", 20, "--json", "--which", "512", "--seed", 5)[1].splitlines()[-1]
    )
    assert again == line != other


def test_play_writes_a_gif(capfd, run, tmp_path):
    import imageio.v3 as imageio

    code, out, _ = call(capfd, "play", run, "--gif", tmp_path / "a.gif")
    assert code == 0 and "one episode, return" in out
    frames = imageio.imread(tmp_path / "a.gif", index=None)
    assert frames.ndim == 4 and len(frames) > 5 and frames.std() > 0
    code, _, err = call(capfd, "play", run, "--gif", tmp_path / "a.txt")
    assert code == 2 and "a video ends in .gif or .mp4" in err


def test_export(capfd, run, tmp_path):
    code, out, _ = call(capfd, "export", run, "--to", "torch", "--which", "last")
    assert code == 0 and out.startswith(f"{run.resolve() / 'policy.pt2'}: ppo on CartPole-v1, step_512, ")
    code, out, _ = call(capfd, "export", run, "--to", "safetensors", "--out", tmp_path / "p.safetensors")
    assert code == 0 and (tmp_path / "p.safetensors").stat().st_size > 1000
    assert call(capfd, "export", run, "--to", "jit")[0] == 2
    (run.resolve() / "policy.pt2").unlink()


def test_resume(capfd, run, tmp_path):
    copy = shutil.copytree(run.resolve(), tmp_path / "run", symlinks=True)
    code, _, err = call(capfd, "resume", copy)
    assert code == 2 and "is finished at 512 steps; give more" in err
    code, out, err = call(capfd, "resume", copy, "--total-steps", 1024, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["steps"] == 1024 and "resumed" in err


@pytest.mark.parametrize(
    ("what", "expected"),
    [("agents", "reinforce"), ("envs", "CartPole-v1"), ("presets", "Pendulum-v1"), ("runs", "ppo")],
)
def test_list(capfd, run, what, expected):
    code, out, _ = call(capfd, "list", what, "--runs", run.parent)
    assert code == 0 and expected in out


def test_list_runs_tells_the_progress_and_its_unit(capfd, run, tmp_path):
    begun = tmp_path / "data" / "dqn" / "0_s0"
    (begun / "checkpoints" / "step_300").mkdir(parents=True)
    run_folders.write(begun, agent="dqn", total_steps=2000, progress="updates")
    assert "300 of 2,000 updates" in call(capfd, "list", "runs", "--runs", tmp_path)[1]
    assert "512 of 512 environment steps" in call(capfd, "list", "runs", "--runs", run.parent)[1]


def test_list_envs_compat(capfd, monkeypatch):
    """The table itself: tests/training/test_compatibility.py."""
    monkeypatch.setattr(compatibility, "environments", lambda: ["CartPole-v1"])
    code, out, _ = call(capfd, "list", "envs", "--compat")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and lines[0][-3:] == [*AGENTS][-3:]
    assert ["CartPole-v1", "native", "-", "Box(4)", "4", "Discrete(2)", "500", "475", "yes"] in [l[:9] for l in lines]
    code, out, _ = call(capfd, "list", "envs", "--markdown")
    assert code == 0 and out.startswith("# Environments") and "| CartPole-v1 | native |" in out
    code, _, err = call(capfd, "list", "agents", "--compat")
    assert code == 2 and "--compat and --markdown are about environments" in err


def test_check(capfd):
    code, out, _ = call(capfd, "check", "ppo", "Pendulum-v1")
    assert code == 0 and "Box(3)" in out and "discount = 0.9" in out and "parameters" in out
    assert "updates      packed (without autograd" in out
    assert "--workers 0 (a native world steps faster than a message travels)" in out and "--collector serial" in out
    assert "cores may be used" in out and "for half of them (" in out
    code, out, err = call(capfd, "check", "random", "MountainCarContinuous-v0")
    assert code == 0 and "updates" not in out
    code, _, err = call(capfd, "check", "pppo", "Pendulum-v1")
    assert code == 2 and "did you mean 'ppo'" in err


def test_check_says_why_it_cannot_work(capfd, monkeypatch):
    """A continuous-only agent on discrete actions, and the reverse."""
    from gymnasium import spaces

    from whorl.agents.ppo import PPO
    from whorl.errors import Incompatible

    build = PPO.build.__func__

    def only(kind):
        def restricted(cls, observation_space, action_space, config):
            if not isinstance(action_space, kind):
                raise Incompatible(f"{cls.__name__} needs {kind.__name__} actions, got {action_space}")
            return build(cls, observation_space, action_space, config)

        return classmethod(restricted)

    for kind, env in ((spaces.Box, "CartPole-v1"), (spaces.Discrete, "Pendulum-v1")):
        monkeypatch.setattr(PPO, "build", only(kind))
        code, _, err = call(capfd, "check", "ppo", env)
        assert code == 1 and f"ppo cannot train in {env}: PPO needs {kind.__name__} actions" in err
        code, _, err = call(capfd, "train", "ppo", env)
        assert code == 2 and "needs" in err


def test_doctor(capfd):
    code, out, _ = call(capfd, "doctor")
    assert code == 0 and whorl.__version__ in out and "rendering" in out and "torch" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "pppo", "CartPole-v1"], "unknown agent 'pppo'; did you mean 'ppo'"),
        (["train", "ppo", "CartPoll-v1"], "near matches: CartPole-v1"),
        (["train", "ppo", "os:system"], "no environment is called 'system'"),
        (["train", "ppo", "CartPole-v1", "--learning-rate", "1"], "Unrecognized"),
        (
            ["train", "ppo", "CartPole-v1", "--agent.gamma", ".9"],
            "option --agent.gamma; what others call gamma is --agent.discount",
        ),
        (["train", "ppo", "CartPole-v1", "--n-steps=9"], "what others call n_steps is --agent.feed.steps"),
        (
            ["train", "ppo", "CartPole-v1", "--policy-kwargs", "9"],
            "is --agent.hidden and --agent.activation, or --encoder for",
        ),
        (["train", "ppo", "CartPole-v1", "--env-id", "9"], "what others call env_id is ENV, the word after AGENT"),
        (["train", "ppo", "CartPole-v1", "--encoder", "Torso"], "expected module:Name, such as nets:Torso"),
        (["train", "ppo", "CartPole-v1", "--encoder", "no_such:Torso"], "there is no module 'no_such' to import"),
        (["train", "ppo", "CartPole-v1", "--encoder", "math:Torso"], "the module math has no 'Torso'"),
        (["train", "ppo", "CartPole-v1", "--encoder", "math:pi"], "math:pi is no class or function but float"),
        (["train", "a3c", "CartPole-v1", "--compile"], "use --update auto"),
        (["train", "dqn", "CartPole-v1", "--agent.feed.storage", "frames"], "use --agent.feed.storage memory"),
        (
            ["sweep", "ppo", "CartPole-v1", "--grid", "std=fixed", "--gamma", "9"],
            "is discount; fields of agents stand in the grid",
        ),
        (
            ["sweep", "ppo", "CartPole-v1", "--agent.learning-rate", "9"],
            "the grid, also those with one value: --grid learning_rate=VALUE",
        ),
        (
            ["sweep", "ppo", "CartPole-v1", "--grid", "discount=.9", "--seeds", "3,4"],
            "of 3,4 say --seeds 2, which begin at 0",
        ),
        (["train", "ppo", "CartPole-v1", "--num-envs", "0"], "num_envs must be at least 1, got 0"),
        (
            ["train", "ppo", "CartPole-v1", "--num-envs", "two"],
            "expected a whole number, such as 100000 or 1e5, got 'two'",
        ),
        (["train", "ppo", "CartPole-v1", "--num-envs", "1.5"], "expected a whole number"),
        (["train", "ppo", "CartPole-v1", "--agent.feed.minibatches", "5000"], "is more than the rollout's 1024 rows"),
        (["train", "ppo", "CartPole-v1", "--agent.std", "both"], "invalid choice"),
        (["train", "ppo", "CartPole-v1", "--name", "../x"], "../x"),
        (["train", "ppo", "CartPole-v1", "--device", "gpu"], "device"),
        (["train", "ppo"], "ENV"),
        (["train"], "AGENT"),
        (["sweep", "ppo", "CartPole-v1"], "the grid is empty"),
        (["sweep", "ppo", "CartPole-v1", "--grid", "gamma=.9"], "no field 'gamma' to vary"),
        (["eval", "."], "not a run"),
        (["resume", "nowhere"], "nowhere"),
        (["list", "everything"], "invalid choice"),
        (["walk"], "walk"),
    ],
)
def test_bad_input_is_exit_code_2_and_writes_nothing(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capfd, *arguments)
    assert code == 2
    assert message in " ".join((out + err).replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


TORSO = """
from whorl.nets.mlp import MLP


def torso(space):
    return MLP(4, (8,))
"""


def test_a_network_of_the_user_s_is_typed(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typed_torso.py").write_text(TORSO)
    own, last = ["--encoder", "typed_torso:torso"], "runs/last"
    assert call(capfd, *TRAIN, "--quiet", *own)[0] == 0
    assert json.loads((tmp_path / last / "config.json").read_text())["encoder"] == "typed_torso:torso"
    for words in (
        ["eval", last, "--episodes", 3],
        ["play", last],
        ["export", last, "--to", "torch"],
        ["resume", last, "--total-steps", 768],
    ):
        code, _, err = call(capfd, *words)
        assert code == 2 and "imports nothing: pass it, --encoder MODULE:torso\n" in err
        assert call(capfd, *words, *own)[0] == 0
    words = ["--grid", "feed.steps=64", "--seeds", 1, "--slots", 1]
    assert call(capfd, "sweep", *TRAIN[1:-2], *words, *own)[0] == 0


def test_options_of_the_environment_are_typed_for_a_run_that_there_is(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        call(capfd, "train", "random", "FrozenLake-v1", "--total-steps", 64, "--env.map_name", "4x4", "--quiet")[0] == 0
    )
    config = tmp_path / "runs" / "last" / "config.json"
    run_folders.change(config.parent.resolve(), env_kwargs={"map_name": "4x4", "desc": ["S.G"]})
    code, _, err = call(capfd, "eval", "runs/last")
    assert code == 2 and "if you trust it, pass it yourself, --env.desc VALUE\n" in err
    for words in (["eval", "runs/last", "--episodes", 5], ["play", "runs/last"]):
        assert call(capfd, *words, "--env.map_name", "4x4")[0] == 0


def test_a_locked_run_is_refused(capfd, run):
    with files.lock(run.resolve()):
        code, _, err = call(capfd, "resume", run, "--total-steps", 9000)
    assert code == 2 and str(os.getpid()) in err


def test_a_missing_checkpoint_names_those_that_exist(capfd, run):
    code, _, err = call(capfd, "eval", run, "--which", "777")
    assert code == 2 and "512" in err
    code, _, err = call(capfd, "eval", run, "--which", "first")
    assert code == 2 and "takes best, last or the step" in err


def test_not_finite_is_exit_code_1(capfd, tmp_path):
    code, _, err = call(
        capfd, *TRAIN, "--runs", tmp_path, "--agent.learning-rate", "1e38", "--agent.max-grad-norm", "1e38"
    )
    assert code == 1 and "became NaN or infinite" in err and "Traceback" not in err


def test_help_imports_no_torch():
    code = (
        "import sys; from whorl.apps.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'too much'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "doctor" in done.stdout


def test_play_writes_an_mp4(capfd, run, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video: pip install 'whorl[video]'")
    code, out, _ = call(capfd, "play", run, "--mp4", tmp_path / "a.mp4")
    assert code == 0 and (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"


def test_an_environment_without_a_picture_says_so(capfd, tmp_path):
    call(capfd, "train", "random", "RandomWalk-v0", *SMALL, "--runs", tmp_path, "--quiet")
    code, _, err = call(capfd, "play", tmp_path / "last")
    assert code == 2 and "RandomWalk-v0 has no picture to record" in err
    assert not (tmp_path / "last" / "video").exists()


def test_submit_board_verify_and_merge(capfd, run, tmp_path):
    board = tmp_path / "board"
    code, out, _ = call(capfd, "submit", run, "--board", board, "--author", "Ada", "--json")
    line = json.loads(out.splitlines()[-1])
    entry = board / "entries" / line["id"]
    assert (
        code == 0 and (line["env"], line["agent"]) == ("CartPole-v1", "ppo") and (entry / "policy.safetensors").exists()
    )
    code, out, _ = call(capfd, "verify", line["id"], "--board", board)
    assert code == 0 and "confirmed" in out
    code, out, _ = call(capfd, "board", "merge", board, "--into", tmp_path / "both")
    assert code == 0 and "1 entries added, 0 were there already" in out
    code, out, _ = call(capfd, "board", board, "--export", tmp_path / "pages")
    assert code == 0 and Path(out.strip()).read_text().count("CartPole-v1")
    claim = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps(claim | {"mean": claim["mean"] + 100}))
    code, _, err = call(capfd, "verify", entry)
    assert code == 2 and "entry.json" in err
    assert call(capfd, "board", tmp_path / "board")[0] == 2  # neither --export nor --serve
    code, _, err = call(capfd, "board", tmp_path / "both", "--export", tmp_path / "pages", "--port", 0, "--token", "")
    assert code == 2 and "--port, --token is for --serve" in err
    code, _, err = call(capfd, "board", tmp_path / "both", "--serve", "--port", 0, "--token", "")
    assert code == 2 and "token" in err


@pytest.mark.parametrize("words", ["submit", "board merge"])
def test_nothing_to_do_is_no_success(capfd, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capfd, *words.split())
    assert code == 2 and "name at least one" in err and not any(tmp_path.iterdir())


def test_what_cannot_be_told_here_has_an_exit_code_of_its_own(capfd, run, tmp_path):
    code, out, _ = call(capfd, "submit", run, "--board", tmp_path, "--json")
    made = entry.read(tmp_path / "entries" / json.loads(out.splitlines()[-1])["id"])
    claim = {f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.name not in ("path", "curve")}
    claim |= {name: [claim[name][0] + 1, *claim[name][1:]] for name in ("returns", "lengths")}
    files = entry.contents(made.path)
    gifs = {name: files[f"{name}.gif"] for name in ("best", "typical")}
    for numpy, expected in ((made.versions["numpy"], 1), ("1.0", 3)):
        evaluated = made.evaluated | {"versions": made.evaluated["versions"] | {"numpy": numpy}}
        other = entry.write(tmp_path, claim | {"evaluated": evaluated}, made.curve, files["policy.safetensors"], gifs)
        code, out, _ = call(capfd, "verify", other.id, "--board", tmp_path, "--json")
        assert code == expected and json.loads(out.splitlines()[-1])["plausible"] == (expected == 3)


def test_plot(capfd, run, tmp_path):
    code, out, _ = call(capfd, "plot", run, "--out", tmp_path / "curves.png")
    assert code == 0 and Path(out.strip()).read_bytes().startswith(b"\x89PNG")
    code, _, err = call(capfd, "plot", tmp_path / "nothing*", "--out", tmp_path / "curves.png")
    assert code == 2 and "nothing*" in err


@pytest.mark.parametrize("command", ["serve-gym", "board"])
def test_servers_listen_answer_and_stop(capfd, command, run, tmp_path):
    """A real process, on a port of its own; an address that others reach needs a token."""
    call_ = "from whorl.apps.cli import main; main()"
    words = [command, "--port", "0"]
    if command == "board":
        main(["submit", str(run), "--board", str(tmp_path / "board")])
        words += [str(tmp_path / "board"), "--serve"]
    code, _, err = call(capfd, *words, "--host", "0.0.0.0")
    assert code == 2 and "token" in err
    process = subprocess.Popen([sys.executable, "-c", call_, *words], stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        path = "/v1/envs/" if command == "serve-gym" else "/"
        body = urllib.request.urlopen(url + path, timeout=60).read().decode()
        assert ('"all_envs":{}' if command == "serve-gym" else "CartPole-v1") in body
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
