"""`whorl run`: torch-twrl's command line, its options and defaults, its two printed commands word for word, its mended mistakes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box

from whorl.agents.reinforce import REINFORCEConfig
from whorl.agents.td import TDConfig
from whorl.apps import twrl, twrl_run
from whorl.apps.cli import main
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts

DEFAULTS = {  # torch-twrl's run.lua, all 37
    "env": "CartPole-v0", "policy": "categorical", "learningUpdate": "reinforce", "model": "mlp", "nSteps": 1000,
    "nIterations": 1000, "video": 100, "renderAllSteps": False, "force": False, "resume": False, "timestepsPerBatch": 1000,
    "stepsizeStart": 0.3, "gamma": 1, "policyStd": 0.1, "nHiddenLayerSize": 10, "gradClip": 5,
    "baselineType": "padTimeDepAvReturn", "weightDecay": 0, "optimAlpha": 0.9, "beta": 0.01, "uploadResults": False,
    "epsilon": 0.1, "epsilonDecayRate": 0.999, "epsilonMinValue": 0.0001, "numTiles": 32, "numTilings": 4, "relativeAlpha": 0,
    "learningType": "batch", "lambda": 0.9, "initialWeightVal": -0.01, "traceType": "replacing", "tdLearnUpdate": "qLearning",
    "windowSize": 10, "optimType": "rmsprop", "verboseUpdate": False, "gymHttpServer": "http://127.0.0.1:5000",
    "experimentLogName": "experiment",
}  # fmt: skip
OURS = {"seed": 0, "runs": "runs", "board": "board", "json": False, "temperature": 1}
OTHER = {  # a value that is not the default
    "env": ("Acrobot-v1", "Acrobot-v1"), "policy": ("normal", "normal"), "learningUpdate": ("tdLambda", "tdLambda"),
    "model": ("qFunction", "qFunction"), "nSteps": ("7", 7), "nIterations": ("1e3", 1000), "video": ("false", 0),
    "renderAllSteps": ("true", True), "force": ("true", True), "resume": ("true", True), "timestepsPerBatch": ("3", 3),
    "stepsizeStart": ("0.05", 0.05), "gamma": (".5", 0.5), "policyStd": ("0.7", 0.7), "nHiddenLayerSize": ("64", 64),
    "gradClip": ("-1", -1), "baselineType": ("zeroBaseline", "zeroBaseline"), "weightDecay": ("1e-4", 1e-4),
    "optimAlpha": ("0.5", 0.5), "beta": ("-0.1", -0.1), "uploadResults": ("true", True), "epsilon": ("1", 1),
    "epsilonDecayRate": ("0", 0), "epsilonMinValue": ("0.2", 0.2), "numTiles": ("9", 9), "numTilings": ("16", 16),
    "relativeAlpha": ("0.05", 0.05), "learningType": ("noBatch", "noBatch"), "lambda": ("0", 0),
    "initialWeightVal": ("-1e-3", -1e-3), "traceType": ("accumulating", "accumulating"), "tdLearnUpdate": ("SARSA", "SARSA"),
    "windowSize": ("3", 3), "optimType": ("adam", "adam"), "verboseUpdate": ("true", True),
    "gymHttpServer": ("http://127.0.0.1:5000", "http://127.0.0.1:5000"), "experimentLogName": ("x", "x"), "seed": ("3", 3),
    "runs": ("a b", "a b"), "board": ("b", "b"), "json": ("true", True), "temperature": ("2", 2.0),
}  # fmt: skip

# As printed, `th run.lua` and `th testScript.lua` replaced. The README came down to us in one line
README = (
    r"whorl run \ -env 'CartPole-v0' \ -policy categorical \ -learningUpdate reinforce \ -model mlp \ -optimAlpha 0.9 "
    r"\ -timestepsPerBatch 1000 \ -stepsizeStart 0.3 \ -gamma 1 \ -nHiddenLayerSize 10 \ -gradClip 5 "
    r"\ -baselineType padTimeDepAvReturn \ -beta 0.01 \ -weightDecay 0 \ -windowSize 10 \ -nSteps 1000 \ -nIterations 1000 "
    r"\ -video 100 \ -optimType rmsprop \ -verboseUpdate true \ -uploadResults false \ -renderAllSteps false"
)
ANNOUNCEMENT = r"""whorl run -env 'CartPole-v0' \
-policy categorical -learningUpdate reinforce -model mlp \
-nSteps 1000 -nIterations 1000 -video 0 \
-uploadResults true -renderAllSteps false"""
COMMANDS = {"readme in one line": README, "announcement": ANNOUNCEMENT}
TD = ["-policy", "egreedy", "-learningUpdate", "tdLambda", "-model", "qFunction"]
RANDOM = ["-policy", "random", "-learningUpdate", "noLearning", "-model", "noModel", "-video", "0"]
SMALL = ["-nIterations", "3", "-timestepsPerBatch", "20", "-video", "0"]


def call(capfd, *arguments):
    """(exit code, standard output, standard error) of `whorl run ARGUMENTS`."""
    code = 0
    try:
        main(["run", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capfd.readouterr()
    return code, out, err


def returns(run):
    return np.loadtxt(Path(run) / "episodes.csv", delimiter=",", skiprows=1, usecols=2, ndmin=1)


def settings(run):
    return json.loads((Path(run) / "config.json").read_text())


def shell(command, cwd):
    """A real shell and a real process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=500
    )


# ---------------------------------------------------------------------------------------------- options


def test_defaults_are_torch_twrls():
    assert twrl.read([]).values == DEFAULTS | OURS
    assert {o.name for o in twrl.OPTIONS.values() if o.ours} == set(OURS)


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("name", [*DEFAULTS, *OURS])
def test_every_option_with_one_dash_or_two(name, dashes):
    word, value = OTHER[name]
    for words in ([f"{dashes}{name}", word], [f"{dashes}{name}={word}"]):
        choice = twrl.read(words)
        assert choice.values == DEFAULTS | OURS | {name: value}
        assert type(choice.values[name]) is type(value) or isinstance(value, float | int)
        assert choice.given == [name]


def test_a_shell_makes_words_with_a_blank_of_the_readmes_line():
    assert shlex.split(README)[2:4] == [" -env", "CartPole-v0"]
    choice = twrl.read([*shlex.split(README)[2:], " "])
    assert choice.values == DEFAULTS | OURS | {"verboseUpdate": True} and len(choice.given) == 21
    lines = shlex.split(README.replace("\\ -", "\\\n-"))  # as it was written, in lines
    assert twrl.read(lines[2:]) == choice


def test_letters():
    words = "-e A -l tdLambda -m table -s 2 -i 3 -v 4 -r true -f true -u true -z .1 -o .2 -b mean -w .4 -a .5 -d true"
    choice = twrl.read(words.split())
    names = (
        "env learningUpdate model nSteps nIterations video renderAllSteps force resume stepsizeStart policyStd baselineType "
        "weightDecay beta uploadResults"
    )
    expected = ["A", "tdLambda", "table", 2, 3, 4, True, True, True, 0.1, 0.2, "mean", 0.4, 0.5, True]
    assert [choice.values[name] for name in names.split()] == expected
    assert choice.given == names.split()


@pytest.mark.parametrize(("letter", "two"), [("p", "policy and timestepsPerBatch"), ("g", "gamma and gradClip")])
def test_letters_that_stood_for_two_options_are_refused(letter, two):
    with pytest.raises(BadInput, match=f"-{letter} stood for {two} in torch-twrl: write the long name"):
        twrl.read([f"-{letter}", "1"])


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_h_is_help_and_no_option(capfd, word):
    """torch-twrl: -h set nHiddenLayerSize."""
    code, out, _ = call(capfd, "-env", "CartPole-v0", word)
    assert code == 0
    assert all(f"\n  -{name} " in out for name in [*DEFAULTS, *OURS])
    assert "(default padTimeDepAvReturn)" in " ".join(out.split())


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom whorl.apps.cli import main\n"
        "try: main(['run', '-help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'tensordict') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_last_of_two_equal_options_wins():
    choice = twrl.read(["-nIterations", "1000", "-gamma", "0.5", "--nIterations", "5"])
    assert (choice.nIterations, choice.gamma) == (5, 0.5)


@pytest.mark.parametrize(("word", "value"), [("false", 0), ("0", 0), ("25", 25)])
def test_video_takes_a_number_or_false(word, value):
    """torch-twrl: `false` was not accepted although the help said so."""
    assert twrl.read(["-video", word]).video == value


def test_the_names_of_test_script():
    assert twrl.read(["-alphaScaleFactor", "0.05"]).values == DEFAULTS | OURS | {"relativeAlpha": 0.05}
    choice = twrl.read(
        shlex.split(
            "-showTrajectory false -actorLearningRate 1e-3 -criticLearningRate .0001 -tau 0.001 -bufferSize 1e4"
        )
    )
    assert choice.values == DEFAULTS | OURS
    assert choice.unused() == ["showTrajectory", "actorLearningRate", "criticLearningRate", "tau", "bufferSize"]


BAD = [
    (["-foo", "1"], "unknown option -foo; `whorl run -help` lists all"),
    (["-nIteration", "5"], "unknown option -nIteration; did you mean -nIterations"),
    (["--learningupdate", "reinforce"], "did you mean -learningUpdate"),
    (["-policy"], "-policy: expected one argument"),
    (["CartPole-v0"], "unrecognized words: CartPole-v0"),
    (["-policy", "greedy"], "-policy: takes one of random, categorical, normal, egreedy, softmax; got 'greedy'"),
    (["-learningUpdate", "ppo"], "-learningUpdate: takes one of noLearning, reinforce, tdLambda; got 'ppo'"),
    (["-model", "cnn"], "-model: takes one of noModel, mlp, qFunction, table, linear; got 'cnn'"),
    (["-baselineType", "average"], "-baselineType: takes one of zeroBaseline, padTimeDepAvReturn, mean, timeDepAvReturn, optimal, "
                                   "leaveOneOut, value; got 'average'"),
    (["-traceType", "replace"], "-traceType: takes one of replacing, accumulating, dutch; got 'replace'"),
    (["-tdLearnUpdate", "sarsa"], "-tdLearnUpdate: takes one of qLearning, SARSA, expectedSARSA; got 'sarsa'"),
    (["-learningType", "online"], "-learningType: takes one of batch, noBatch; got 'online'"),
    (["-optimType", "rms"], "-optimType takes one of adadelta, adafactor, adagrad, adam"),
    (["-force", "yes"], "-force: takes true or false, got 'yes'"),
    (["-resume", "1"], "-resume: takes true or false, got '1'"),
    (["-json", "True"], "-json: takes true or false, got 'True'"),
    (["-video", "true"], "-video: takes a number of episodes or false, got 'true'"),
    (["-video", "often"], "-video: takes a whole number of at least 0 or false, got 'often'"),
    (["-nSteps", "0"], "-nSteps: takes a whole number of at least 1, got '0'"),
    (["-nIterations", "2.5"], "-nIterations: takes a whole number of at least 1, got '2.5'"),
    (["-gamma", "1.1"], "-gamma: takes a number from 0 to 1, got '1.1'"),
    (["-stepsizeStart", "-0.1"], "-stepsizeStart: takes a number of at least 0, got '-0.1'"),
    (["-stepsizeStart", "nan"], "-stepsizeStart: takes a number of at least 0, got 'nan'"),
    (["-epsilon", "inf"], "-epsilon: takes a number from 0 to 1, got 'inf'"),
    (["-gymHttpServer", "10.0.0.1:5000"], "takes the URL of a gym HTTP server"),
    (["-showTrajectory", "true"], "-showTrajectory: is not available (no window is opened"),
    (["-tau", "0.01"], "-tau: is not available (it belonged to a DDPG that torch-twrl never had), got '0.01'"),
    (["-alphaScaleFactor", "1", "-relativeAlpha", "1"], "two names of one option"),
    (["-env", "CartPoll-v0"], "near matches: CartPole-v0"),
    (["-env", "os:system"], "an id cannot import a module"),
    (["-experimentLogName", "../up"], "-experimentLogName '../up' cannot name a folder"),
    (["-learningType", "noBatch"], "-learningType noBatch: reinforce learns from batches of whole episodes; it takes batch"),
    ([*TD, "-learningType", "batch"], "-learningType batch: tdLambda learns at each step; it takes noBatch"),
    ([*TD, "-traceType", "dutch"], "true online TD (trace 'dutch') is for sarsa and prediction"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(words[-2:]) for words, _ in BAD])
def test_bad_input_is_exit_code_2_and_writes_nothing(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capfd, *arguments)
    assert code == 2 and out == ""
    assert message in err and err.startswith("whorl: ") and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- the triple

PG = "-model mlp -policy categorical -learningUpdate reinforce"
NORMAL = "-model mlp -policy normal -learningUpdate reinforce"
TILES = "-model qFunction|linear -policy egreedy|softmax -learningUpdate tdLambda"
TABLE = "-model table -policy egreedy|softmax -learningUpdate tdLambda"
NOTHING = "-model noModel -policy random -learningUpdate noLearning"


@pytest.mark.parametrize(
    ("env", "triples"),
    [
        ("CartPole-v0", [PG, TILES, NOTHING]),
        ("CliffWalking-v1", [PG, TABLE, NOTHING]),
        ("Pendulum-v1", [NORMAL, NOTHING]),
        ("Blackjack-v1", [PG, NOTHING]),
    ],
)
def test_a_triple_that_is_none_is_refused_with_those_that_are(capfd, tmp_path, monkeypatch, env, triples):
    monkeypatch.chdir(tmp_path)
    world = make_env(env)
    models, policies = twrl.OPTIONS["model"].choices, twrl.OPTIONS["policy"].choices
    allowed = 0
    for model in models:
        for policy in policies:
            for update in twrl.OPTIONS["learningUpdate"].choices:
                choice = twrl.read(["-env", env, "-model", model, "-policy", policy, "-learningUpdate", update])
                try:
                    twrl_run.check(choice, world)
                    allowed += 1
                except Incompatible as error:
                    assert str(error).startswith(
                        f"-model {model} -policy {policy} -learningUpdate {update} is not an agent for {env} ("
                    )
                    assert str(error).endswith(f"Possible there: {'; '.join(triples)}")
    assert allowed == sum({TILES: 4, TABLE: 2}.get(triple, 1) for triple in triples)
    code, _, err = call(capfd, "-env", env, "-model", "noModel")
    assert code == 2 and "Possible there: " in err and list(tmp_path.iterdir()) == []


def test_the_normal_policy_needs_bounds():
    world = make_env("Pendulum-v1")
    world.action_space = Box(-np.inf, np.inf, (1,))
    with pytest.raises(Incompatible, match=f"Possible there: {NOTHING}$"):
        twrl_run.check(twrl.read(["-env", "Pendulum-v1", "-policy", "normal"]), world)


def test_the_flagship_in_whorls_words():
    choice = twrl.read(shlex.split(README.replace("\\ -", "-"))[2:])
    assert twrl_run.translate(choice) == REINFORCEConfig(
        learning_rate=0.3, anneal_episodes=1000, discount=1, baseline="padded_time", entropy_weight=0.01, max_grad_norm=0,
        clip_value=5, reduction="sum", normalize_advantage=True, hidden=(10,), activation="tanh", initialization="uniform",
        optimizer="rmsprop", smoothing=0.9, optimizer_eps=1e-8, weight_decay=0, feed=Rollouts(1000, unit="episode"),
    )  # fmt: skip
    short = twrl.read(shlex.split(ANNOUNCEMENT.replace("\\\n", ""))[2:])  # run.lua's defaults are the same parameters
    assert twrl_run.translate(short) == twrl_run.translate(choice)


def test_the_normal_policy_is_a_tanh_mean_in_half_action_ranges():
    """torch-twrl: a softmax head for Box, actions compared in other units than the mean."""
    words = "-env Pendulum-v1 -policy normal -policyStd 0.5 -gradClip -1 -baselineType leaveOneOut -optimType adam -optimAlpha .2"
    config = twrl_run.translate(twrl.read(words.split()))
    assert (config.std, config.fixed_std, config.mean, config.scale) == ("fixed", 0.5, "tanh", True)
    assert (config.clip_value, config.baseline, config.optimizer) == (0, "leave_one_out", "adam")


def test_every_baseline_has_a_translation():
    names = [twrl_run.BASELINES[name] for name in twrl.OPTIONS["baselineType"].choices]
    assert sorted(names) == sorted(["none", "mean", "time", "padded_time", "optimal", "leave_one_out", "value"])


def test_td_in_whorls_words():
    words = [
        *TD,
        *shlex.split(
            "-tdLearnUpdate SARSA -lambda .8 -numTilings 5 -numTiles 10 -initialWeightVal -1 -relativeAlpha .05"
        ),
    ]
    assert twrl_run.translate(twrl.read(words)) == TDConfig(
        target="sarsa", trace="replacing", trace_decay=0.8, learning_rate=0.01, discount=1, exploration="epsilon_greedy",
        epsilon=0.1, epsilon_decay=0.999, epsilon_min=0.0001, model="tile_coding", tilings=5, tiles=5, memory=100, bias=True,
        initial_value=-6,
    )  # fmt: skip
    assert twrl_run.translate(twrl.read(TD)).learning_rate == 0.3
    words = shlex.split(
        "-policy softmax -learningUpdate tdLambda -model table -temperature .5 -traceType dutch -initialWeightVal 2"
    )
    assert twrl_run.translate(twrl.read([*words, "-relativeAlpha", "1"])) == TDConfig(
        target="q_learning", trace="dutch", trace_decay=0.9, learning_rate=0.3, discount=1, exploration="softmax",
        temperature=0.5, epsilon=0.1, epsilon_decay=0.999, epsilon_min=0.0001, model="table", initial_value=2,
    )  # fmt: skip


def test_a_fresh_q_function_has_the_initial_weights():
    from whorl.agents.td import TD as Agent

    env = make_env("CartPole-v0")
    agent = Agent.build(env.observation_space, env.action_space, twrl_run.translate(twrl.read(TD)))
    assert (agent.critic.weight == pytest.approx(-0.01)) and agent.critic.features.size == 4 * 32**2 + 1


# ---------------------------------------------------------------------------------------------- reports


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        ([], []),
        (["-epsilon", "0.1", "-lambda", "1", "-gamma", "1"], ["epsilon", "lambda"]),
        (["-optimType", "adam", "-optimAlpha", "0.5"], ["optimAlpha"]),
        (["-policyStd", "1"], ["policyStd"]),
        (["-env", "Pendulum-v1", "-policy", "normal", "-policyStd", "1", "-beta", "0.01"], ["beta"]),
        ([*TD, "-verboseUpdate", "true", "-gradClip", "5", "-relativeAlpha", "1", "-stepsizeStart", "1"],
         ["verboseUpdate", "gradClip", "stepsizeStart"]),
        ([*TD, "-stepsizeStart", "1", "-temperature", "1", "-epsilon", "1"], ["temperature"]),
        (shlex.split("-policy softmax -learningUpdate tdLambda -model table -numTiles 3 -epsilon 1 -stepsizeStart 1 -relativeAlpha 1"),
         ["numTiles", "epsilon", "relativeAlpha"]),
        ([*RANDOM, "-learningType", "batch", "-gamma", "1", "-stepsizeStart", "1", "-seed", "1", "-gamma", "0"],
         ["learningType", "gamma", "stepsizeStart"]),
    ],
)  # fmt: skip
def test_options_without_effect_are_named(words, unused):
    choice = twrl.read(words)
    assert choice.unused() == unused
    notes = twrl_run.notes(choice)
    assert ", ".join("-" + name for name in unused) in "".join(notes) and len(notes) == bool(unused)


def test_what_cannot_be_done_is_said(capfd, tmp_path):
    words = shlex.split("-renderAllSteps true -force true -resume true -epsilon 1 -nIterations 1")
    code, _, err = call(capfd, *RANDOM, *words, "-runs", tmp_path)
    lines = err.splitlines()
    assert code == 0
    assert "not used by noModel + random + noLearning: -epsilon" in lines
    assert any(line.startswith("-renderAllSteps true: not available") for line in lines)
    assert any(line.startswith("-force true: nothing to overwrite") for line in lines)
    assert any(line.startswith("-resume true: no unfinished run experiment_*") for line in lines)


def test_json_line_has_the_best_and_the_last_mean_of_100_consecutive_episodes(capfd, tmp_path):
    code, out, _ = call(capfd, *RANDOM, "-nIterations", "130", "-runs", tmp_path, "-json", "true", "-seed", "4")
    line = json.loads(out.splitlines()[-1])
    assert code == 0 and set(line) == {"run", "episodes", "best_mean_100", "last_mean_100"}
    all_returns = returns(line["run"])
    means = [all_returns[i : i + 100].mean() for i in range(31)]
    assert line["episodes"] == len(all_returns) == 130
    assert line["best_mean_100"] == pytest.approx(max(means)) and line["last_mean_100"] == pytest.approx(means[-1])
    assert line["best_mean_100"] > line["last_mean_100"]
    assert f"best {max(means):.1f}, last {means[-1]:.1f}" in out


def test_episodes_beyond_the_last_do_not_count(capfd, tmp_path):
    """A batch of reinforce may hold more episodes than are left."""
    words = ["-nIterations", "103", "-timestepsPerBatch", "4000", "-video", "0", "-windowSize", "50", "-json", "true"]
    _, out, _ = call(capfd, *words, "-runs", tmp_path)
    line, found = json.loads(out.splitlines()[-1]), returns(tmp_path / "last")
    assert len(found) > 103 and line["episodes"] == 103
    assert line["last_mean_100"] == pytest.approx(found[3:103].mean())
    assert [row.split(":")[0] for row in out.splitlines() if row.startswith("episode")] == ["episode 50", "episode 100"]


def test_json_line_with_fewer_than_100_episodes(capfd, tmp_path):
    _, out, _ = call(capfd, *RANDOM, "-nIterations", "99", "-runs", tmp_path, "-json", "true")
    line = json.loads(out.splitlines()[-1])
    assert (line["episodes"], line["best_mean_100"], line["last_mean_100"]) == (99, None, None)


def test_the_summary_slides(capfd, tmp_path):
    """torch-twrl: the standard deviation of one episode was NaN, the window a block of its own count."""
    _, out, _ = call(capfd, *RANDOM, "-nIterations", "9", "-windowSize", "4", "-runs", tmp_path)
    found = returns(tmp_path / "last")
    expected = [
        f"episode {n}: return {found[n - 4 : n].mean():.2f} +- {found[n - 4 : n].std():.2f} over the last 4, "
        f"{found[:n].mean():.2f} +- {found[:n].std():.2f} over all, at most {found[:n].max():.2f}"
        for n in (4, 8)
    ]
    assert out.splitlines()[:-1] == expected
    _, out, _ = call(capfd, *RANDOM, "-nIterations", "1", "-windowSize", "1", "-runs", tmp_path)
    assert "+- 0.00 over the last 1" in out


def test_verbose_update(capfd, tmp_path):
    words = [
        "-nIterations",
        "20",
        "-timestepsPerBatch",
        "60",
        "-video",
        "0",
        "-verboseUpdate",
        "true",
        "-windowSize",
        "100",
    ]
    _, out, _ = call(capfd, *words, "-runs", tmp_path)
    lengths = np.loadtxt(tmp_path / "last" / "episodes.csv", delimiter=",", skiprows=1, usecols=3, dtype=int).tolist()
    expected, episode = [], 0
    while episode < 20:
        batch = []
        while sum(batch) < 60:
            batch.append(lengths[episode + len(batch)])
        episode += len(batch)
        rate = max(0.0, 0.3 * (1 - episode / 20))
        expected.append(
            f"update: episode {min(episode, 20)}, learning rate {np.float32(rate):.6g}, {len(batch)} episodes and {sum(batch)} steps"
        )
    assert [line.removesuffix(" in the batch") for line in out.splitlines()[:-1]] == expected


# ---------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("name", COMMANDS)
def test_the_printed_commands_word_for_word(tmp_path, name):
    """In a real shell; only a small budget is added at the end."""
    done = shell(f"{COMMANDS[name]} -nIterations 3 -timestepsPerBatch 20 -seed 2 -json true", tmp_path)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["episodes"] == 3 and "/runs/CartPole-v0/reinforce/experiment_" in line["run"]
    assert "not used" not in done.stderr
    run = settings(tmp_path / "runs" / "last")
    assert run["seed"] == 2 and run["config"]["learning_rate"] == 0.3 and run["config"]["baseline"] == "padded_time"
    assert ("update: episode" in done.stdout) == ("verboseUpdate" in COMMANDS[name])
    uploads = "uploadResults true" in COMMANDS[name]
    assert (
        ("uploadResults: board/entries/" in done.stdout)
        == uploads
        == bool([*tmp_path.glob("board/entries/*/best.gif")])
    )
    assert (tmp_path / "runs" / "last" / "curve.png").exists()


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (RANDOM, "Pendulum-v1"),
        (["-policy", "normal"], "Pendulum-v1"),
        (["-baselineType", "value", "-optimType", "adam", "-gradClip", "0"], "CartPole-v1"),
        (["-baselineType", "optimal", "-beta", "-0.01"], "CliffWalking-v1"),
        (TD, "CartPole-v0"),
        ([*TD, "-tdLearnUpdate", "expectedSARSA", "-policy", "softmax"], "MountainCar-v0"),
        ([*TD, "-model", "linear", "-traceType", "dutch", "-tdLearnUpdate", "SARSA", "-stepsizeStart", "1e-4"], "Acrobot-v1"),
        ([*TD, "-model", "table", "-traceType", "accumulating", "-lambda", "0.5"], "CliffWalking-v1"),
    ],
)  # fmt: skip
def test_every_kind_of_triple_runs(capfd, tmp_path, words, env):
    code, out, err = call(capfd, *SMALL, "-env", env, *words, "-nSteps", "30", "-runs", tmp_path, "-json", "true")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["episodes"] == 3 and len(returns(tmp_path / "last")) >= 3


def test_an_upload_has_a_curve_and_a_failed_one_loses_no_line(capfd, tmp_path):
    small = [*RANDOM, "-env", "CartPole-v1", "-nSteps", "30", "-nIterations", "5", "-runs", tmp_path, "-json", "true"]
    code, out, err = call(capfd, *small, "-uploadResults", "true", "-board", tmp_path / "board")
    assert code == 0 and json.loads(out.splitlines()[-1])["episodes"] == 5, err
    [path] = tmp_path.glob("board/entries/*/curve.json")
    curve = json.loads(path.read_text())
    assert len(curve["step"]) >= 3 and len(curve["mean"]) == len(curve["seconds"]) == len(curve["step"])
    (tmp_path / "file").write_text("")
    code, out, err = call(capfd, *small, "-uploadResults", "true", "-board", tmp_path / "file")
    assert code == 1 and err and json.loads(out.splitlines()[-1])["episodes"] == 5


def test_n_steps_shortens_episodes_and_never_lengthens_them(capfd, tmp_path):
    call(capfd, *RANDOM, "-env", "MountainCar-v0", "-nSteps", "7", "-nIterations", "2", "-runs", tmp_path)
    assert returns(tmp_path / "last").tolist() == [-7, -7]
    _, _, err = call(capfd, *RANDOM, "-env", "MountainCar-v0", "-nSteps", "500", "-nIterations", "2", "-runs", tmp_path)
    assert returns(tmp_path / "last").tolist() == [-200, -200] and "2 episodes of at most 200 steps" in err


def test_two_runs_never_share_a_folder(capfd, tmp_path):
    """torch-twrl: the log folder's time stamp had months for minutes, and two runs could fall into one folder."""
    places = set()
    for _ in range(3):
        _, out, _ = call(
            capfd, *RANDOM, "-nIterations", 1, "-runs", tmp_path, "-experimentLogName", "x", "-json", "true"
        )
        places.add(json.loads(out.splitlines()[-1])["run"])
    assert len(places) == 3 and all(Path(place).name.startswith("x_") for place in places)


def test_same_seed_same_run(capfd, tmp_path):
    found = []
    for seed in (1, 1, 2):
        call(capfd, *SMALL, "-nIterations", "30", "-seed", seed, "-runs", tmp_path)
        found.append(returns(tmp_path / "last").tolist())
    assert found[0] == found[1] != found[2]


def test_video_every_so_many_episodes(capfd, tmp_path):
    """The policy of the moment, and training goes on as if nobody had looked."""
    words = [*SMALL, "-nIterations", "9", "-runs", tmp_path, "-video"]
    found = {}
    for every in ("3", "false"):
        call(capfd, *words, every)
        videos = sorted(path.name for path in (tmp_path / "last").glob("video/*"))
        found[every] = returns(tmp_path / "last").tolist(), videos
    assert found["3"][0] == found["false"][0] and found["false"][1] == []
    assert found["3"][1] and set(found["3"][1]) <= {f"episode_{n:06d}.gif" for n in (3, 6, 9, 12)}


def test_a_world_that_cannot_be_drawn(capfd, tmp_path):
    """It has a curve only, and the run does not fail for it."""
    words = shlex.split("-model table -env RandomWalk-v0 -nIterations 3 -video 2 -uploadResults true")
    code, out, err = call(capfd, *TD, *words, "-runs", tmp_path, "-board", tmp_path / "board")
    assert code == 0 and "-video 2: no videos, RandomWalk-v0 has no picture to record" in err
    (entry,) = (tmp_path / "board" / "entries").iterdir()
    assert str(entry) in out and not [*entry.glob("*.gif")] and (tmp_path / "last" / "curve.png").exists()


RESUMED = shlex.split(
    "-nIterations 300 -timestepsPerBatch 300 -stepsizeStart 0.02 -video 0 -seed 7 -experimentLogName cut"
)


def test_resume_goes_on_where_a_killed_run_was(capfd, tmp_path):
    """torch-twrl: resume was the string "false", always on, and no model was ever saved."""
    code = "from whorl.apps.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", *RESUMED, "-runs", str(tmp_path / "a")], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list((tmp_path / "a").glob("*/*/*/checkpoints/step_[1-9]*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    code, out, err = call(capfd, *RESUMED, "-stepsizeStart", "0.1", "-resume", "true", "-runs", tmp_path / "a")
    assert code == 2 and "learning_rate is 0.02 there, 0.1 here" in err
    code, out, err = call(capfd, *RESUMED, "-resume", "true", "-runs", tmp_path / "a", "-json", "true")
    assert code == 0 and "resumed" in err
    call(capfd, *RESUMED, "-runs", tmp_path / "b")
    assert len(list((tmp_path / "a").glob("CartPole-v0/*/*"))) == 1
    whole, broken = ((tmp_path / runs / "last" / "episodes.csv").read_text() for runs in "ba")
    assert whole == broken
    summaries = [line for line in out.splitlines() if line.startswith("episode ")]
    assert summaries[-1].startswith("episode 300: ") and len(summaries) < 30
    code, out, err = call(capfd, *RESUMED, "-nIterations", "1", "-resume", "true", "-runs", tmp_path / "a")
    assert code == 0 and "no unfinished run cut_*" in err and len(list((tmp_path / "a").glob("CartPole-v0/*/*"))) == 2


def test_whorl_lists_the_command(capfd):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "torch-twrl's command line" in capfd.readouterr().out


def test_the_page_has_every_option_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "twrl.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    assert rows == {name: twrl.text(option.default) for name, option in twrl.OPTIONS.items()}
    for name in [*twrl.RENAMED, *twrl.GONE, *(f"-{letter}" for letter in twrl.LETTERS)]:
        assert f"`{name}`" in page
