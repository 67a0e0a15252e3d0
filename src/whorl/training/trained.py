"""What a run folder gives back: its settings and its trained policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from numpy.typing import ArrayLike
from torch import Generator

from whorl import __version__, options
from whorl.batch import Numbers
from whorl.envs.env import Env
from whorl.envs.ids import check_no_token, is_url
from whorl.envs.make import EnvLike, as_env, environment
from whorl.envs.own_form import Given, Own, batched, row, rows
from whorl.envs.watchdog import watching
from whorl.errors import BadInput
from whorl.feeds import Fed
from whorl.files import shown
from whorl.functional.streams import stream
from whorl.training import checkpoint, folder
from whorl.training import state as states
from whorl.training.actor import TrainedActor
from whorl.training.build import new_agent
from whorl.training.catalog import config_from_json, config_to_json
from whorl.training.evaluate import Evaluation, eval_envs, evaluate
from whorl.training.export import Format, export
from whorl.training.settings import Settings
from whorl.training.video import film
from whorl.training.written import columns, read_config


class Trained:
    """A trained policy from a run folder, ready to act."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        config: Fed,
        which: str | int,
        env: Env | None = None,
        typed: bool = False,
    ):
        """typed: the environment's URL comes from the user, not from the run."""
        self.path, self.settings, self._typed = path, settings, typed
        self.env = env if env is not None else environment(self._id(), 1, settings.seed)
        self.policy = new_agent(settings.agent, self.env, config, settings.seed).policy.eval()
        self.checkpoint = checkpoint.find(path / "checkpoints", which)
        states.load(self.checkpoint, {"policy": self.policy}, read_config(path))
        self._generator = Generator().manual_seed(stream(settings.seed, "predict"))

    def _id(self) -> str:
        return needs_no_object(self.path, self.settings, self._typed)

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
        Raises BadInput for what does not fit the spaces, for a policy whose choice depends on what came before (`actor` keeps that),
        and for one without a greedy action (random).
        """
        policy = self.policy
        if policy.recurrent or (not deterministic and policy.initial(1) is not None):
            what = "remembers its episode" if policy.recurrent else "draws numbers that last for several steps"
            raise BadInput(
                f"{self.settings.agent} {what}, and predict remembers nothing: use trained.actor(n), which does, and takes is_first"
            )
        batch, single = batched(self.env.own_observation_space, observation)
        action = self.actor(rows(batch), deterministic, generator).act(batch, True, action_mask)
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
        nested as its space is, and give the batch of actions that its `step` takes. An action mask counts where it is part of the
        observation. What the policy is stands in the file's metadata.
        Raises BadInput for a policy without a greedy action, with a memory, or with parts that torch cannot export.
        """
        about = {
            "agent": self.settings.agent,
            "environment": self.settings.env,
            "observation_space": str(self.env.own_observation_space),
            "action_space": str(self.env.own_action_space),
            "checkpoint": self.checkpoint.name,
            "whorl": __version__,
        }
        return export(self.policy, self.env, Path(path), to, about)

    def evaluate(self, episodes: int = 100, seed: int = 1_000_000) -> Evaluation:
        """Greedily, over whole episodes of the environment it was trained in."""
        id, limit = self._id(), self.settings.max_episode_steps
        env = environment(id, eval_envs(episodes, self.env.origin), seed, max_episode_steps=limit)
        try:
            with watching(self.settings.env_timeout):
                return evaluate(self.policy, env, episodes, seed)
        finally:
            env.close()

    def metrics(self) -> dict[str, list[float | None]]:
        """Every metric that its run logged, as a column: see `written.columns`."""
        return columns(self.path)

    def film(self, file: Path, seed: int = 0, max_steps: int = 10_000) -> tuple[float, int]:
        """Play one greedy episode into `file` (.gif or .mp4); its return and length. See `training/video.py`."""
        id, limit = self._id(), self.settings.max_episode_steps
        with watching(self.settings.env_timeout):
            return film(self.policy, id, file, seed, limit or max_steps)


def load(path: str | Path, which: str | int = "best", env: EnvLike | None = None, config: Fed | None = None) -> Trained:
    """The policy of a run: `best` (by evaluation during training; the last where there was none), `last`, or a step.

    env: only for a run that was trained on an environment object, or on data alone, to give the spaces; or the URL of a run that was
    trained on a server, without which nothing is connected to. config: only for one whose feed is
    a class of yours.
    Raises BadInput when `path` is not a run or has no such checkpoint, Damaged when the checkpoint is not what was written.
    """
    path = folder.open_run(path)
    if which == "best" and "best" not in checkpoint.marked(path / "checkpoints"):
        which = "last"
    settings, config = read_settings(path, config)
    if isinstance(env, str):
        return Trained(path, at(path, settings, env), config, which, typed=True)
    return Trained(path, settings, config, which, None if env is None else as_env(env, 1))


def needs_no_object(path: Path, settings: Settings, typed: bool = False) -> str:
    """The environment's id. Raises BadInput when the run was trained on an object, or on data alone, or on a server: then it is only
    connected to where the user has `typed` its URL, whatever the run says."""
    if settings.own_env or not settings.env:
        what = f"an environment object ({settings.env})" if settings.own_env else "data, with no environment named"
        how = "whorl.load(path, env=...) or whorl.resume(path, " + ("env=...)" if settings.own_env else "data=...)")
        raise BadInput(f"{path} was trained on {what}: pass one, {how}")
    if is_url(settings.env) and not typed:
        raise BadInput(
            f"{path} was trained on a server, {shown(settings.env)}, and a run folder alone makes no connection: name the URL, "
            "whorl.load(path, env=URL) or whorl.resume(path, env=URL), --env URL on the command line"
        )
    return settings.env


def at(path: Path, settings: Settings, url: str) -> Settings:
    """The settings of a run that was trained on a server, with the environment at `url`. Raises BadInput for any other run."""
    check_no_token(url)
    if not (is_url(url) and is_url(settings.env)):
        raise BadInput(
            f"{path} was trained on {settings.env or 'data'}: only for a run that was trained on a server env may be an id, its URL; "
            f"got {shown(url)}"
        )
    return dataclasses.replace(settings, env=url)


def settings_json(settings: Settings, config: Fed) -> Numbers:
    """What `config.json` holds. `progress`: the unit of the run's steps, for whoever draws it."""
    config_json = config_to_json(settings.agent, config)
    return dataclasses.asdict(settings) | {"progress": config.feed.progress, "config": config_json}


def read_settings(path: Path, config: Fed | None = None) -> tuple[Settings, Fed]:
    """The settings and the agent's config that a run was started with.

    config: the latter, of a run whose feed is a class of the user's. Raises Damaged for a file that is not as it was written, naming the
    field, BadInput for an option that the agent does not have and a `config` that is not as written.
    """
    written = read_config(path)
    if config is not None and config_to_json(written.settings.agent, config) != written.config:
        raise BadInput(f"{path} was started with another config: pass the one that it was started with")
    try:
        config = config or config_from_json(written.settings.agent, written.config)
        options.check(config)
    except BadInput as error:
        raise type(error)(f"{written.path}: {error}") from None
    written.check()
    return written.settings, config
