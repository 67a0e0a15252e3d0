"""The serial collector: one process, N environments, rollouts [T, N]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from whorl.batch import Batch
from whorl.collectors.collector import Collector
from whorl.envs.env import Env
from whorl.errors import EnvError
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

LONGEST = 100_000  # steps that whole episodes may take beyond what was asked for


class SerialCollector(Collector):
    """Iterator of rollouts. A rollout is valid until the next one is asked for: its memory is allocated once and written again.

    steps: rows of a rollout. whole_episodes: every environment starts a rollout with a reset and plays whole episodes until it has
    at least `steps` rows; rows it spends waiting for the others have `mask` False.
    Raises NotFinite naming the environment when an observation or a reward is NaN or infinite, EnvError when whole episodes have no
    end.
    """

    def __init__(self, env: Env, policy: Policy, steps: int, seed: int = 0, whole_episodes: bool = False):
        super().__init__(env, policy, steps, seed)
        self.target, self.whole_episodes = steps, whole_episodes
        self._weight = next(policy.parameters(), torch.empty(0, device=env.device))  # lies where rollouts should go

    def collect(self) -> Batch:
        """The next rollout, a TensorDict [T, N] on the policy's device."""
        env, record, target, actor = self.env, self.recorder, self.target, self.recorder.actor
        playing = self._begin()
        noise, t = self._noise(0), 0
        while True:
            decided, record.carry = actor(
                record.observation, record.carry, record.is_first, noise[t % target], env.action_mask
            )
            if not record.memory:
                record.allocate(decided)
            step = record.step(t, decided)
            record.is_first = is_first = step.begins
            if self.whole_episodes:
                record.memory["mask"][t] = playing if step.valid is None else playing & step.valid
                record.masked = True
                if t + 1 >= target:
                    playing = playing & ~is_first
            t += 1
            if t >= target and (not self.whole_episodes or not playing.any()):
                break
            self._check_end(t)
            if t % target == 0:
                noise = self._noise(t // target)
            if t == record.capacity:
                record.grow()
        return self._finish(t)

    def _begin(self) -> Any:
        """Reset what must be; bool [N]: who plays."""
        record = self.recorder
        if record.observation is None:
            self.start()
        elif self.whole_episodes:
            record.reset()
            self.ledger.forget()
            if record.tally is not None:
                record.tally.forget()
        if record.masked:
            record.memory["mask"][:], record.masked = True, False
        return record.full(True)

    def _check_end(self, t: int) -> None:
        if t >= self.target + LONGEST:
            raise EnvError(
                f"an episode of {self.env!r} did not end within {LONGEST:,} steps, and whole episodes were asked for; "
                "give the environment a time limit (max_episode_steps)"
            )

    def _noise(self, chunk: int) -> Any:
        """The numbers of `target` steps, from their own stream (seed, rollout, chunk)."""
        self.generator.manual_seed(stream(self.seed, "acting", self.rollouts, chunk))
        noise = self.policy.noise((self.target, self.env.num_envs), self.generator)
        return noise.numpy() if self.env.device == "cpu" else noise

    def _finish(self, t: int) -> Batch:
        """Check, count, list the finished episodes, and hand the memory out as a batch."""
        self.recorder.memory["version"][:t] = self.version
        self.recorder.check_finite(t, self.rollouts)
        return self._counted(t)

    def _counted(self, t: int) -> Batch:
        m = self.recorder.memory
        masked = self.whole_episodes or (self.recorder.masked and not bool(m["mask"][:t].all()))
        rollout = self.recorder.rollout(t, masked)
        self.rollouts += 1
        over = m["next"]["terminated"] if self.recorder.games is None else self.recorder.games
        counted = self.recorder.raw_reward, over, m["next"]["truncated"], m["mask"]
        self.ledger.add(*(x[:t] if isinstance(x, np.ndarray) else x[:t].cpu().numpy() for x in counted))
        if self.recorder.tally is not None:
            self.ledger.episodes = self.recorder.tally.add(m, t, self.ledger.episodes)
        device = self._weight.device
        return rollout if str(device) == self.env.device else rollout.to(device)
