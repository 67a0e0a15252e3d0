"""Who should step the environments of a run: what a step and a decision cost here, and what follows from that."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import torch

from whorl import spaces
from whorl.envs.env import Env, check_scalar_reward
from whorl.envs.guard import guarded
from whorl.errors import BadInput
from whorl.feeds import Feed
from whorl.policies.policy import Held, Policy
from whorl.training.collecting import Collecting
from whorl.training.slots import allowed_cores
from whorl.transforms.transform import flags

EXCHANGE = 0.1  # ms that a step costs more where processes take it (benchmarks/workers.py)
WELL_OVER = 3  # times that is enough to be worth processes
ASLEEP, BUSY = (
    0.5,
    1.5,
)  # of its time a step is on the processor: at most, where it sleeps; at least, where it has threads of its own
MOST_SHARE = 0.8  # of the time for N rows that a decision for N / 2 may take
LEAST_SHARE = (
    0.4  # less than half is no saving of rows: threads of numpy's BLAS, which only larger products have, wait for cores
)
LEAST_SAVED = 0.1  # of step and decision together, where halves take turns: they save the shorter of the two
SECONDS, MOST_TURNS, LEAST_TURNS = 2.0, 1_000, 3  # of measuring: until one of the first two, and no less than the last


class Costs(NamedTuple):
    """What was seen of N environments, stepped in one process; times in milliseconds."""

    num_envs: int
    cores: int  # that the run may use
    step: float  # all N, by the clock
    cpu: float  # time of the processor in it
    decide: float  # the policy for N rows
    half: float  # for N / 2 rows
    compiled: bool = False  # a native world
    workers: bool = True  # whether processes can step them here, and
    alternating: bool = True  # halves can take turns

    @property
    def share(self) -> float:
        """Of the time for N rows that half of them take."""
        return self.half / self.decide


class Advice(NamedTuple):
    """Settings of a run, each with the reason."""

    workers: int
    collector: str
    why_workers: str
    why_collector: str
    doubt: str = ""  # why none of it is to be trusted


DOUBT = (
    "half of the rows is decided in {:.1%} of the time of all, which fewer rows do not explain, so these figures are not to be trusted: "
    "numpy's threads may be fighting for the cores, which slows training, too; measure again with OPENBLAS_NUM_THREADS=1"
)


def advise(costs: Costs) -> Advice:
    """Processes where a step costs well over the exchange with them: as many as there are cores, or environments where a step sleeps.
    Nothing where the figures contradict each other.
    Halves that take turns where what they save is more than what deciding twice costs."""
    if not costs.compiled and costs.num_envs > 1 and costs.share < LEAST_SHARE:
        unknown = "measure again"
        return Advice(0, "serial", unknown, unknown, DOUBT.format(costs.share))
    n, workers, why = costs.num_envs, *_workers(costs)
    if not workers:
        return Advice(0, "serial", why, "halves take turns only where workers step")
    reason = _no_turns(costs, workers)
    if reason:
        return Advice(workers, "serial", why, reason)
    of_half = max(1, workers // 2)
    return Advice(
        of_half, "alternating", f"{why}; {of_half} for each half", f"half of {n} rows is decided in {costs.share:.0%}"
    )


def _workers(costs: Costs) -> tuple[int, str]:
    enough = WELL_OVER * EXCHANGE
    if costs.compiled:
        return 0, "a native world steps faster than a message travels"
    if not costs.workers:
        return 0, "this agent, or its device, takes environments of its own process"
    if costs.num_envs < 2:
        return 0, "there is one environment"
    if costs.step < enough:
        return 0, f"a step is short beside the {EXCHANGE:g} ms of an exchange with workers"
    if costs.cpu <= ASLEEP * costs.step:
        return costs.num_envs, "a step mostly waits, so all can wait together"
    if costs.cpu >= BUSY * costs.step:
        return 0, "a step takes several cores already"
    if costs.cores < 2:
        return 0, "a step is all computing, and there is one core"
    return min(costs.cores, costs.num_envs), "a step computes, on as many cores as there are"


def _no_turns(costs: Costs, workers: int) -> str:
    """Why halves should not take turns; "": they should."""
    step = costs.step * -(-costs.num_envs // workers) / costs.num_envs  # the fullest worker's
    if not costs.alternating or workers < 2:
        return "halves that take turns cannot be here"
    if costs.share > MOST_SHARE:
        return f"half of the rows is decided in {costs.share:.0%} of the time of all: too much"
    if step < WELL_OVER * EXCHANGE:
        return f"with {workers} workers a step is short beside the exchange"
    if min(step, costs.decide) < LEAST_SAVED * (step + costs.decide):
        return "decisions and steps differ so much that little can be saved"
    return ""


def measure(env: Env, policy: Policy, feed: Feed, seconds: float = SECONDS) -> Costs:
    """Step `env` from a reset with the policy's own actions, for so many seconds at most. It stays open.

    Raises Incompatible where there is no one reward, and what the environment's guard raises.
    """
    check_scalar_reward(env)
    n, half, world = env.num_envs, max(1, env.num_envs // 2), guarded(env)
    actors = policy.actor(n), policy.actor(half)
    carries: list[Held] = [policy.initial(n), policy.initial(half)]
    generator = torch.Generator().manual_seed(0)
    observation, is_first = world.reset(0), flags(n, env.device, True)
    taken: list[tuple[float, float, float, float]] = []
    over = time.perf_counter() + seconds
    while len(taken) < LEAST_TURNS or (time.perf_counter() < over and len(taken) < MOST_TURNS):
        noise = policy.noise((1, n), generator)[0].to(env.device)
        drawn = noise.numpy() if env.device == "cpu" else noise
        clock = [time.perf_counter()]
        for k, rows in ((1, half), (0, n)):  # the whole last: what an actor gives lives until its next call
            seen = spaces.tree_map(lambda x: x[:rows], observation)  # noqa: B023  it is called at once
            mask = None if env.action_mask is None else env.action_mask[:rows]
            decided, carries[k] = actors[k](seen, carries[k], is_first[:rows], drawn[:rows], mask)
            clock.append(time.perf_counter())
        cpu = time.process_time()
        step = world.step(decided["action"])
        taken.append(
            (clock[1] - clock[0], clock[2] - clock[1], time.perf_counter() - clock[2], time.process_time() - cpu)
        )
        observation, is_first = step.observation, step.begins
    of_half, decide, stepped, used = (1000 * median(column) for column in zip(*taken, strict=True))
    return Costs(
        n, len(allowed_cores()), stepped, used, decide, of_half if n > 1 else decide, env.compiled,
        workers=env.device == "cpu" and not feed.own_envs and env.made_from is not None,
        alternating=_takes_turns(feed, env),
    )  # fmt: skip


def _takes_turns(feed: Feed, env: Env) -> bool:
    try:
        Collecting("alternating").check(feed, env.made_from or env, env.device == "cpu", env.num_envs)
    except BadInput:  # Incompatible is one
        return False
    return True
