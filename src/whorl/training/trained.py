"""What a run folder gives back: its settings and its trained policy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from pathlib import Path

from numpy.typing import ArrayLike
from torch import Generator

from whorl import __version__, options
from whorl.batch import Numbers
from whorl.envs.env import Env
from whorl.envs.make import EnvLike, Wrapper
from whorl.envs.own_form import Given, Own, batched, row, rows
from whorl.envs.watchdog import watching
from whorl.errors import BadInput, WhorlError
from whorl.feeds import Fed
from whorl.functional.streams import stream
from whorl.nets.encoder import EncoderFactory
from whorl.training import checkpoint, folder
from whorl.training import state as states
from whorl.training.actor import TrainedActor
from whorl.training.brought import check_encoder, check_same, functions_again, named
from whorl.training.catalog import AgentLike, check_config, config_from_json, config_to_json
from whorl.training.evaluate import Evaluation, evaluate_in
from whorl.training.export import Format, export
from whorl.training.new_agent import new_agent
from whorl.training.same_spaces import check_spaces
from whorl.training.settings import Settings
from whorl.training.source import source_of, variant
from whorl.training.video import film
from whorl.training.written import columns, read_config
from whorl.transforms.words import described


class Trained:
    """A trained policy from a run folder, ready to act."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        config: Fed,
        which: str | int,
        env: Env,
        agent: AgentLike | None = None,
        encoder: EncoderFactory | None = None,
    ):
        """agent: its class, or one that is built, if it is the user's. encoder: likewise."""
        self.path, self.settings, self.env = path, settings, env
        policy = new_agent(agent or settings.agent, self.env, config, settings.seed, encoder).policy
        self.policy = deepcopy(policy).cpu().eval()  # that of an agent which came built goes on learning
        self.checkpoint = checkpoint.find(path / "checkpoints", which)
        states.load(self.checkpoint, {"policy": self.policy}, read_config(path))
        if learned := env.learned():
            env.load_learned(states.learned(self.checkpoint, learned))
        self._generator = Generator().manual_seed(stream(settings.seed, "predict"))

    def predict(
        self,
        observation: Given,
        action_mask: ArrayLike | None = None,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> Own:
        """The action for one observation, or one each for a batch of them [N, ...], in the environment's own action space: what its
        `step` takes. The observation is in its own form, too: what `reset` and `step` gave.

        action_mask: allowed actions, [A] or [N, A], where the observation does not hold them. deterministic: the greedy action; False
        draws it as in training, with `generator` if one is given, else with one of this object's, seeded like the run.
        Raises BadInput for what does not fit the spaces, for a policy, or transforms around its environment, whose choice depends on what
        came before (`actor` keeps that), and for one without a greedy action (random).
        """
        policy = self.policy
        if policy.recurrent or (not deterministic and policy.initial(1) is not None):
            what = "remembers its episode" if policy.recurrent else "draws numbers that last for several steps"
            raise BadInput(
                f"{self.settings.agent} {what}, and predict remembers nothing: use trained.actor(n), which does, and takes is_first"
            )
        batch, single = batched(self.env.own_observation_space, observation)
        actor = self.actor(rows(batch), deterministic, generator)
        if actor.remembering:
            raise BadInput(
                f"{', '.join(actor.remembering)} remembers the episode, and predict remembers nothing: use trained.actor(n), which does, "
                "and takes is_first"
            )
        action = actor.act(batch, True, action_mask)
        return row(action, 0) if single else action

    def actor(self, n: int = 1, deterministic: bool = True, generator: Generator | None = None) -> TrainedActor:
        """Acts in n environments at once and keeps the policy's memory: `action = actor(observation, is_first)`. See `TrainedActor`.

        deterministic, generator: as for `predict`.
        """
        return TrainedActor(self.policy, self.env, n, deterministic, generator or self._generator)

    def export(self, path: str | Path, to: Format | None = None) -> Path:
        """Writes the greedy policy, its normalizer inside, into a file that is used without whorl; returns its path.

        to: "onnx" (needs the extra onnx; onnxruntime is asked for the same actions before anything is written), "torch"
        (`torch.export.load(path).module()`), or "safetensors" (the policy's tensors, without what computes with them). By default the
        suffix says it: .onnx, .pt2, .safetensors. The first two take a batch of observations [N, ...] as the environment gives them,
        nested as its space is (keys of a Dict in the space's order, sorted by name: the module of torch reads them by place), and give
        the batch of actions that its `step` takes. An action mask counts where it is part of the
        observation. What the policy is stands in the file's metadata.
        Transforms that it was trained through are inside, too, but not in safetensors; the metadata names them.
        Raises BadInput for a policy without a greedy action, with a memory (its own or that of a transform, which is named), or with parts
        that torch cannot export.
        """
        about = {
            "agent": self.settings.agent,
            "environment": self.settings.env,
            "transforms": described(self.settings.transforms),
            "observation_space": str(self.env.own_observation_space),
            "action_space": str(self.env.own_action_space),
            "checkpoint": self.checkpoint.name,
            "whorl": __version__,
        }
        return export(self.policy, self.env, folder.place(path, "an export"), to, about)

    def evaluate(self, episodes: int = 100, seed: int = 1_000_000, env: EnvLike | None = None) -> Evaluation:
        """Greedily, over whole episodes of the environment it was trained in, or of `env`: whatever `whorl.train` takes.

        env: an object is taken as it is, and so is an `EnvKind`; of an id, a class or a function environments are made with the run's
        wrappers around them, and without its env_kwargs: where it has some, one line says so.
        Raises BadInput for an environment whose spaces are others.
        """
        source = self.env.made_from or self.env if env is None else variant(self.env.made_from, env)
        with watching(self.settings.env_timeout):
            return evaluate_in(self.policy, self.env, source, episodes, seed, self.settings.max_episode_steps)

    def metrics(self) -> dict[str, list[float | None]]:
        """Every metric that its run logged, as a column: see `written.columns`."""
        return columns(self.path)

    def film(self, file: str | Path, seed: int = 0, max_steps: int = 10_000) -> tuple[float, int]:
        """Play one greedy episode into `file` (.gif or .mp4); its return and length. An environment object plays it itself. See
        `training/video.py`."""
        with watching(self.settings.env_timeout):
            return film(
                self.policy,
                self.env.made_from or self.env,
                folder.place(file, "a film"),
                seed,
                self.settings.max_episode_steps or max_steps,
                known=self.env,
            )


def load(
    path: str | PathLike[str],
    which: str | int = "best",
    env: EnvLike | None = None,
    config: Fed | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    agent: AgentLike | None = None,
    encoder: EncoderFactory | None = None,
    **functions: Callable[..., object],
) -> Trained:
    """The policy of a run: `best` (by evaluation during training; the last where there was none), `last`, or a step.

    env: of your own, for a run that was trained in one, or on data alone; the URL of a run that was trained on a server, without which
    nothing is connected to; for any other, another environment with the same spaces, which it is evaluated in. env_kwargs: instead of
    ALL that the run was trained with, which are otherwise those of its own environment. wrappers: for a run that was trained with some.
    config: only for one whose feed is a class of yours. agent: the class (or one that is built) of a run whose agent is yours, which its
    folder cannot name; encoder: likewise; functions: of yours that fields of its config are, such as `estimator=my_function`.
    Raises BadInput when `path` is not a run or has no such checkpoint, Damaged when the checkpoint is not what was written.
    """
    path = folder.open_run(path)
    if which == "best" and "best" not in checkpoint.marked(path / "checkpoints"):
        which = "last"
    settings, config = read_settings(path, config, agent, functions)
    check_taken(functions, config)
    check_encoder(path, settings, encoder)
    source = source_of(path, settings, env, env_kwargs, wrappers)
    made = source if isinstance(source, Env) else source.make(1, settings.seed)
    try:
        check_spaces(settings.spaces, made)
    except WhorlError:
        if made is not source:
            made.close()
        raise
    return Trained(path, settings, config, which, made, agent, encoder)


def check_taken(functions: Mapping[str, object], config: Fed) -> None:
    """Raises BadInput for what is no argument of `load`: no function that a field of the config is."""
    taken = [field.name for field in options.fields(type(config)) if callable(getattr(config, field.name))]
    known = [name for name in inspect.signature(load).parameters if name != "functions"] + taken
    for name in functions:
        if name not in taken:
            raise BadInput(
                f"whorl.load has no argument {name!r}{options.did_you_mean(name, known)}: there are {', '.join(known)}"
            )


def settings_json(settings: Settings, config: Fed, agent: AgentLike) -> Numbers:
    """What `config.json` holds. `progress`: the unit of the run's steps, for whoever draws it."""
    config_json = config_to_json(agent, config)
    return options.to_json(settings) | {"progress": config.feed.progress, "config": config_json}


def read_settings(
    path: Path, config: Fed | None = None, agent: AgentLike | None = None, functions: Mapping[str, object] = {}
) -> tuple[Settings, Fed]:
    """The settings and the agent's config that a run was started with.

    config: the latter, of a run whose feed is a class of the user's; agent: of one whose agent is; functions: those that the config only
    names, by field. Raises Damaged for a file that is not
    as it was written, naming the field, BadInput for an option that the agent does not have, and for a `config` or an agent that is not
    as written.
    """
    written = read_config(path)
    kind = agent or named(path, written.settings.agent)
    check_same(path, written.settings.agent, kind)
    if config is not None:
        check_config(kind, config)
        if config_to_json(kind, config) != written.config:
            raise BadInput(f"{path} was started with another config: pass the one that it was started with")
    try:
        config = config or config_from_json(kind, functions_again(path, kind, written.config, functions))
        options.check(config)
    except BadInput as error:
        raise type(error)(f"{written.path}: {error}") from None
    written.check()
    return written.settings, config
