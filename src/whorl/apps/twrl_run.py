"""A command line of torch-twrl as a whorl run: the triple checked against the environment's spaces, translated, trained, reported."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from whorl import folders
from whorl.agents.optimizers import OPTIMIZERS
from whorl.apps.board.submit import submit
from whorl.apps.twrl import OPTIONS, Choice, text
from whorl.batch import Arrays, Numbers, State
from whorl.collectors.ledger import Episode
from whorl.envs.env import Env
from whorl.envs.ids import is_url
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput, Incompatible, command
from whorl.feeds import Rollouts
from whorl.options import override
from whorl.spaces import describe
from whorl.training import folder
from whorl.training.catalog import agent_class, config_to_json
from whorl.training.curve import moving_mean
from whorl.training.loggers import Logger
from whorl.training.new_agent import new_agent
from whorl.training.run import Run
from whorl.training.start import resume, train
from whorl.training.video import drawable
from whorl.training.window import Window
from whorl.training.written import read_config, read_episodes

AGENTS = {"noLearning": "random", "reinforce": "reinforce", "tdLambda": "td"}
LEARNS = {"reinforce": "batch", "tdLambda": "noBatch"}
BASELINES = {
    "zeroBaseline": "none", "padTimeDepAvReturn": "padded_time", "mean": "mean", "timeDepAvReturn": "time",
    "optimal": "optimal", "leaveOneOut": "leave_one_out", "value": "value",
}  # fmt: skip
TARGETS = {"qLearning": "q_learning", "SARSA": "sarsa", "expectedSARSA": "expected_sarsa"}
MODELS = {"qFunction": "tile_coding", "table": "table", "linear": "linear"}
CONSECUTIVE = 100  # episodes of the mean that says "solved"


class Triple(NamedTuple):
    models: tuple[str, ...]
    policies: tuple[str, ...]
    update: str

    def __str__(self) -> str:
        return f"-model {'|'.join(self.models)} -policy {'|'.join(self.policies)} -learningUpdate {self.update}"


def run(o: Choice) -> None:
    """Check, report what has no effect, train or go on, summarise. Raises BadInput before anything is written."""
    env = make_env(o.env, 1, seed=o.seed)
    limit = env.max_episode_steps
    check(o, env)
    agent, config = AGENTS[o.learningUpdate], translate(o)
    new_agent(agent, env, config, o.seed)  # says what does not go together
    env.close()
    folders.check_name(o.experimentLogName, "-experimentLogName")
    progress = Progress(o)
    longest = min(o.nSteps, limit or o.nSteps)
    undrawn = _undrawn(o) if o.video else ""
    wanted = {option.setting: getattr(o, name) for name, option in OPTIONS.items() if option.setting}
    wanted |= {"video_every": 0} if undrawn else {}
    wanted |= {"max_episode_steps": None} if longest == limit else {}
    unfinished = _unfinished(o, agent) if o.resume else None
    if unfinished:
        _same(unfinished, wanted | {"config": config_to_json(agent, config)})
    for note in notes(o, unfinished, undrawn):
        progress.message(note)
    progress.message(
        f"{o.model} + {o.policy} + {o.learningUpdate}: {o.nIterations} episodes of at most {longest} steps"
    )
    if unfinished:
        done = resume(unfinished, quiet=True, env=o.env if is_url(o.env) else None, loggers=[progress])
    else:
        total = o.nIterations * longest  # as many episodes have ended by then
        done = train(
            agent, o.env, config=config, **wanted, total_steps=total, num_envs=1, runs=o.runs, name=_name(o),
            eval_every=max(1, total // 20) if o.uploadResults else 0, eval_episodes=20,  # for the entry's curve
            checkpoint_every=max(1000, total // 20),
            log_every=1 if agent == "reinforce" else 2000, quiet=True, loggers=[progress],
        )  # fmt: skip
    _finish(o, done)


def possible(env: Env) -> list[Triple]:
    """The triples that can run in `env`."""
    observation, action = env.observation_space, env.action_space
    found = []
    if isinstance(action, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        found.append(Triple(("mlp",), ("categorical",), "reinforce"))
    elif isinstance(action, spaces.Box) and len(action.shape) == 1 and np.isfinite([action.low, action.high]).all():
        found.append(Triple(("mlp",), ("normal",), "reinforce"))
    vector = isinstance(observation, spaces.Box) and len(observation.shape) == 1
    if isinstance(action, spaces.Discrete) and (vector or isinstance(observation, spaces.Discrete)):
        found.append(Triple(("qFunction", "linear") if vector else ("table",), ("egreedy", "softmax"), "tdLambda"))
    return [*found, Triple(("noModel",), ("random",), "noLearning")]


def check(o: Choice, env: Env) -> None:
    """Raises Incompatible when the triple is none, or none for these spaces; BadInput for a learningType that the update has not."""
    there = possible(env)
    if not any(o.model in t.models and o.policy in t.policies and o.learningUpdate == t.update for t in there):
        raise Incompatible(
            f"-model {o.model} -policy {o.policy} -learningUpdate {o.learningUpdate} is not an agent for {o.env} "
            f"(observation {describe(env.observation_space)}, action {describe(env.action_space)}). "
            f"Possible there: {'; '.join(map(str, there))}"
        )
    needed = LEARNS.get(o.learningUpdate, o.learningType)
    if "learningType" in o.given and o.learningType != needed:
        how = "from batches of whole episodes" if needed == "batch" else "at each step"
        raise BadInput(
            f"-learningType {o.learningType}: {o.learningUpdate} learns {how}; it takes {needed}, or nothing"
        )
    if o.optimType not in OPTIMIZERS:
        raise BadInput(f"-optimType takes one of {', '.join(sorted(OPTIMIZERS))}; got {o.optimType!r}")


def translate(o: Choice) -> Any:
    """The config of the whorl agent that does what the triple and its options ask for."""
    if o.learningUpdate == "noLearning":
        fields: dict[str, Any] = {"feed": Rollouts(steps=1, unit="episode")}  # one episode each
    elif o.learningUpdate == "reinforce":
        fields = _reinforce(o)
    else:
        fields = _td(o)
    return override(agent_class(AGENTS[o.learningUpdate]).Config(), fields)


def _reinforce(o: Choice) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "learning_rate": o.stepsizeStart, "anneal_steps": 0, "anneal_episodes": o.nIterations, "discount": o.gamma,
        "baseline": BASELINES[o.baselineType], "normalize_advantage": True, "normalize_observation": False,
        "entropy_weight": o.beta, "reduction": "sum", "max_grad_norm": 0.0, "clip_value": max(0.0, o.gradClip),
        "optimizer": o.optimType, "optimizer_eps": 1e-8, "smoothing": o.optimAlpha, "weight_decay": o.weightDecay,
        "hidden": (o.nHiddenLayerSize,), "activation": "tanh", "initialization": "uniform",
        "feed": Rollouts(o.timestepsPerBatch, unit="episode"),
    }  # fmt: skip
    if o.policy == "normal":
        fields |= {"std": "fixed", "fixed_std": o.policyStd, "mean": "tanh", "scale": True}
    return fields


def _td(o: Choice) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "target": TARGETS[o.tdLearnUpdate], "trace": o.traceType, "trace_decay": getattr(o, "lambda"),
        "clear_other_actions": False, "learning_rate": o.stepsizeStart, "discount": o.gamma,
        "exploration": "softmax" if o.policy == "softmax" else "epsilon_greedy", "temperature": o.temperature,
        "epsilon": o.epsilon, "epsilon_decay": o.epsilonDecayRate, "epsilon_min": o.epsilonMinValue,
        "model": MODELS[o.model], "initial_value": o.initialWeightVal,
    }  # fmt: skip
    if o.model == "qFunction":
        fields |= {"tilings": o.numTilings, "tiles": o.numTilings, "memory": o.numTiles**2, "bias": True}
        fields["initial_value"] = (o.numTilings + 1) * o.initialWeightVal  # so many weights make a value
        if o.relativeAlpha:
            fields["learning_rate"] = o.relativeAlpha / o.numTilings
    return fields


# ---------------------------------------------------------------------------------------------- reports


def _undrawn(o: Choice) -> str:
    """Why there can be no video of the environment; "" if there can."""
    try:
        drawable(EnvKind(o.env), o.seed).close()
    except BadInput as reason:
        return str(reason)
    return ""


def notes(o: Choice, unfinished: Path | None = None, undrawn: str = "") -> list[str]:
    """What was asked for and has no effect, one line each."""
    found = []
    if unused := o.unused():
        found.append(
            f"not used by {o.model} + {o.policy} + {o.learningUpdate}: {', '.join('-' + name for name in unused)}"
        )
    if undrawn:
        found.append(f"-video {o.video}: no videos, {undrawn}")
    if o.renderAllSteps:
        found.append("-renderAllSteps true: not available, no window is opened; watch with -video N or `whorl play`")
    if o.force:
        found.append("-force true: nothing to overwrite, every run has a folder of its own")
    if o.resume and unfinished is None:
        found.append(
            f"-resume true: no unfinished run {o.experimentLogName}_* of this agent in {o.env}, so a new one begins"
        )
    return found


class Progress(Logger):
    """A logger of the run: the sliding summary every windowSize episodes and each update on standard output, messages on standard error."""

    def __init__(self, o: Choice):
        self._window, self._last, self._verbose = Window(o.windowSize), o.nIterations, o.verboseUpdate
        self._count, self._mean, self._squares, self._best = 0, 0.0, 0.0, -math.inf  # over all episodes (Welford 1962)
        self._batch: deque[int] = deque()  # lengths of the episodes since the last update

    def add(self, episodes: Sequence[Episode]) -> None:
        for _, _, ret, length, _ in episodes:
            self._batch.append(length)
            if self._count == self._last:  # the last batch may hold more
                continue
            self._window.add(ret, length)
            self._count += 1
            change = ret - self._mean
            self._mean += change / self._count
            self._squares += change * (ret - self._mean)
            self._best = max(self._best, ret)
            if self._count % self._window.size == 0:
                self._summary()

    def _summary(self) -> None:
        std = math.sqrt(self._squares / self._count)
        print(
            f"episode {self._count}: return {self._window.mean:.2f} +- {self._window.std:.2f} over the last {len(self._window)}, "
            f"{self._mean:.2f} +- {std:.2f} over all, at most {self._best:.2f}",
            flush=True,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        rate = metrics.get("train/learning_rate")
        if self._verbose and rate is not None:
            print(
                f"update: episode {self._count}, learning rate {rate:.6g}, {len(self._batch)} episodes and "
                f"{sum(self._batch)} steps in the batch",
                flush=True,
            )
        self._batch.clear()

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def state(self) -> State:
        """Everything, for the checkpoint."""
        total = [self._count, self._mean, self._squares, self._best if self._count else None]
        return {}, {"window": self._window.state()[1], "total": total}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        if numbers["window"]["size"] == self._window.size:  # another windowSize begins a new window
            self._window.load_state({}, numbers["window"])
        self._count, self._mean, self._squares, best = numbers["total"]
        self._best = -math.inf if best is None else best
        self._batch.clear()
        return True


def _finish(o: Choice, done: Run) -> None:
    returns = read_episodes(done.path / "episodes.csv")[: o.nIterations, 2]
    means = moving_mean(returns, CONSECUTIVE)[CONSECUTIVE - 1 :]
    best, last = (float(means.max()), float(means[-1])) if len(means) else (None, None)
    score = "" if best is None else f"; mean of {CONSECUTIVE} consecutive episodes: best {best:.1f}, last {last:.1f}"
    print(f"{done.path}: {len(returns)} episodes, {done.steps:,} steps{score}")
    try:
        if o.uploadResults:
            place = Path(o.board) / "entries" / submit(done.path, o.board).id
            print(f"uploadResults: {place}, with curve and GIF; see it: {command('board', o.board, '--serve')}")
    finally:  # the last line, also where the upload fails
        if o.json:
            line = {"run": str(done.path), "episodes": len(returns), "best_mean_100": best, "last_mean_100": last}
            print(json.dumps(line), flush=True)


# ---------------------------------------------------------------------------------------------- the run's place


def _name(o: Choice) -> str:
    return f"{o.experimentLogName}_{datetime.now():%Y-%m-%d_%H-%M-%S}_s{o.seed}"


def _unfinished(o: Choice, agent: str) -> Path | None:
    """The newest run of this name, environment and agent that has no eval.json, the last file that a run writes."""
    named = re.compile(rf"{re.escape(o.experimentLogName)}_(\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d)_s\d+(?:-(\d+))?")
    found = []
    for path in folder.runs_in(o.runs):
        match = named.fullmatch(path.name)
        s = read_config(path).settings if match else None
        if match and s and (s.env, s.agent) == (o.env, agent) and not (path / "eval.json").exists():
            found.append((match[1], int(match[2] or 1), path))
    return max(found)[2] if found else None


def _same(path: Path, wanted: dict[str, Any]) -> None:
    """Raises BadInput when the run in `path` was started with other settings than these."""
    flat = lambda d: {**{k: v for k, v in d.items() if k != "config"}, **d["config"]}  # noqa: E731
    written = read_config(path).check()
    have, want = vars(written.settings) | written.config | {"progress": written.progress}, flat(wanted)
    other = [
        f"{key} is {text(have.get(key))} there, {text(want[key])} here" for key in want if have.get(key) != want[key]
    ]
    if other:
        raise BadInput(
            f"-resume true: the newest unfinished run {path} was started with other settings: {'; '.join(other)}. "
            "Give its own, or another -experimentLogName, or leave -resume out"
        )
