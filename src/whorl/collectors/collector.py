"""What all collectors share: an environment, a policy, the record of what they do, and the ledger of how far they came."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.collectors.decorrelate import wander
from whorl.collectors.ledger import Episode, Ledger
from whorl.collectors.record import Recorder
from whorl.envs.env import Env
from whorl.errors import NotReplayed
from whorl.functional.streams import stream
from whorl.policies.policy import Array, Policy


class Collector:
    """Iterator of rollouts [T, N]. Subclasses write `collect`.

    ledger: environment steps and episodes so far. rollouts: how many there were. version: of the weights it acts with.
    decorrelate: each environment takes 0 to so many random actions before the first rollout. They are counted, and nobody learns from them.
    """

    notice = ""  # what whoever starts a run with it should know
    decorrelate = 0

    def __init__(self, env: Env, policy: Policy, rows: int, seed: int):
        self.env, self.policy, self.seed = env, policy, seed
        self.recorder = Recorder(env, policy, rows)
        self.ledger = Ledger(env.num_envs)
        self.rollouts = self.version = 0
        self.why_fresh = f"{env!r} cannot save its state"  # where `load_state` begins fresh episodes
        self.generator = torch.Generator(env.device)

    def collect(self) -> Batch:
        """The next rollout."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin the first episodes."""
        self.recorder.reset(self.seed)
        if self.decorrelate:
            wander(self.recorder, self.ledger, self.decorrelate, self.seed)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.collect()

    def done(self, total_steps: int) -> bool:
        """Whether that many environment steps, or `ledger.most_episodes` episodes, are over."""
        return self.ledger.done(total_steps)

    @property
    def steps(self) -> int:
        """Environment steps so far, of all environments together."""
        return self.ledger.count

    @property
    def finished(self) -> int:
        """Episodes so far."""
        return self.ledger.finished

    @property
    def lost(self) -> int:
        """Episodes so far that nobody saw the end of, because what stepped them died; they are in no statistics."""
        return self.ledger.lost

    @property
    def episodes(self) -> list[Episode]:
        """Those that ended in the last rollout, with raw returns."""
        return self.ledger.episodes

    @property
    def is_first(self) -> Array:
        """bool [N]: an episode begins where the environment stands."""
        return self.recorder.is_first

    def sync(self, policy: Policy) -> int:
        """Act with these weights from now on; returns the new version. In place, so that the actor's views stay valid."""
        if policy is not self.policy:
            self.policy.load_state_dict(policy.state_dict())
        self.version += 1
        return self.version

    def report(self) -> dict[str, float]:
        """What it adds to a row of a run's log, by whole names."""
        said = {"rollout/lost": self.lost, "time/worker_restarts": self.env.restarts}
        return {name: number for name, number in said.items() if number}

    def close(self) -> None:
        """End what it has begun beside `env`. Calling it twice is harmless."""

    def state(self) -> State:
        """(arrays, numbers) from which `load_state` goes on to the same bits, where the environment can save its state."""
        counted, ledger = self.ledger.state()
        arrays, numbers = self.recorder.state()
        numbers |= {"ledger": ledger, "rollouts": self.rollouts, "version": self.version}
        return arrays | counted, numbers

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Restore. False: the environment cannot save its state, so fresh episodes begin (from a stream of their own)."""
        self.rollouts, self.version = numbers["rollouts"], numbers["version"]
        self.ledger.load_state(arrays, numbers["ledger"])
        try:
            if self.recorder.load_state(arrays, numbers):
                return True
        except NotReplayed as reason:
            self.why_fresh = str(reason)
        self.recorder.reset(stream(self.seed, "resume", self.steps))
        self.ledger.forget()
        return False
