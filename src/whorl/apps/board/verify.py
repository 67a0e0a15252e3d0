"""Plays the evaluation of an entry again: is its policy worth what the entry claims?

What is confirmed is the score. That the policy came from this config, in so many steps, only training again could show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from whorl.apps.board import entry
from whorl.apps.board.entry import MIB, Entry
from whorl.apps.board.forms import EPISODES
from whorl.apps.board.submit import examine, machine
from whorl.envs.make import make_env
from whorl.errors import BadInput, Damaged
from whorl.policies.policy import Policy
from whorl.training import folder
from whorl.training.build import new_agent
from whorl.training.catalog import agent_class
from whorl.training.config import check, from_json, to_json
from whorl.training.plot import flat

NOISE = 3  # standard errors of the difference that another version or machine may make
SIZES = (
    "atoms",
    "quantiles",
    "critics",
    "samples",
    "target_samples",
    "acting_samples",
    "cosines",
    "tilings",
    "tiles",
    "memory",
)


@dataclass(frozen=True)
class Verdict:
    confirmed: bool
    exact: bool  # every episode came out with the return and the length that is claimed
    claimed: float  # mean return
    found: float
    message: str  # one line


def verify(entry_or_id: str | Path, board: str | Path | None = None) -> Verdict:
    """Rebuilds the policy of an entry (its folder; or its id, with the board) and plays the protocol's episodes.

    Confirmed if all of them are equal; also if versions or machine are not those of the submission and the two means lie within
    NOISE standard errors of their difference. Raises BadInput when there is no such entry, or its environment is not installed here;
    Damaged when the entry is not as it was written, or its policy does not fit its config.
    """
    path = entry.find(entry_or_id, board)
    claim = entry.read(path)
    score, threshold = examine(policy(claim), claim.env)
    mean, std = float(score.returns.mean()), float(score.returns.std())
    equal = int(np.sum((score.returns == claim.returns) & (score.lengths == claim.lengths)))
    # by the spread that was found here: the claimed one may be invented
    reach = NOISE * math.sqrt(2 * std**2 / EPISODES)
    changed = _changed(claim)
    both = f"claimed {claim.mean:.6g} +- {claim.std:.3g}, found {mean:.6g} +- {std:.3g}"
    apart = f"{abs(mean - claim.mean):.3g} apart, {NOISE} standard errors are {reach:.3g}"
    confirmed, exact = False, False
    if threshold != claim.reward_threshold:
        said = f"refuted: {both}; the reward threshold of {claim.env} is {threshold}, not {claim.reward_threshold}"
    elif equal == EPISODES:
        confirmed = exact = True
        said = f"confirmed, all {EPISODES} episodes equal: mean return {mean:.6g} +- {std:.3g}"
    elif not changed:
        said = f"refuted: {both}; same versions and machine, but only {equal} of {EPISODES} episodes are equal"
    else:
        confirmed = abs(mean - claim.mean) <= reach
        verdict = "confirmed within noise" if confirmed else "refuted"
        said = f"{verdict}: {both}; {apart}; not as at the submission: {', '.join(changed)}"
    return Verdict(confirmed, exact, claim.mean, mean, said)


def _changed(claim: Entry) -> list[str]:
    """What is not as it was when the entry was submitted, by name."""
    here: dict[str, Any] = folder.meta()
    pairs = {name: (claim.evaluated["versions"].get(name), version) for name, version in here["versions"].items()}
    pairs |= {name: (claim.evaluated["machine"][name], value) for name, value in machine(here).items()}
    return [name for name, (before, now) in pairs.items() if before != now]


def policy(claim: Entry) -> Policy:
    """The policy of an entry, ready to act. Raises BadInput for an unknown environment, Damaged for a policy that does not fit."""
    data = entry.contents(claim.path)["policy.safetensors"]
    env = make_env(claim.env, 1)
    try:
        cls = agent_class(claim.agent).Config
        config = from_json(cls, claim.config)
        check(config)
        if foreign := flat(claim.config).keys() - flat(to_json(cls())).keys():
            raise BadInput(f"the config of {claim.agent} has no field {min(foreign)}")
        check_sizes(claim.config, len(data))
        rebuilt = new_agent(claim.agent, env, config, claim.settings["seed"]).policy.eval()
        tensors = safetensors.torch.load(data)
    except Exception as error:  # a stranger's config can break anything
        raise Damaged(f"{claim.path}: its policy cannot be built ({type(error).__name__}: {error})") from None
    finally:
        env.close()
    wanted, found = (
        {name: (t.dtype, tuple(t.shape)) for name, t in tree.items()} for tree in (rebuilt.state_dict(), tensors)
    )
    if wanted != found:
        name = next(name for name in [*wanted, *found] if wanted.get(name) != found.get(name))
        raise Damaged(
            f"{claim.path}: policy.safetensors does not fit the config: {name[:100]} should be {wanted.get(name)}, it is {found.get(name)}"
        )
    rebuilt.load_state_dict(tensors)
    return rebuilt


def check_sizes(config: dict[str, Any], policy_bytes: int) -> None:
    """Raises BadInput for a config whose networks would be far larger than the policy beside it: building them could take all memory."""
    room = max(policy_bytes, MIB)
    for name, value in flat(config).items():
        widths = value if isinstance(value, list) else []
        numbers = [width for width in widths if type(width) is int]
        weights = sum(a * b for a, b in zip([1, *numbers], numbers))
        if 4 * weights > 64 * room or (name in SIZES and type(value) is int and value > room // 4):
            raise BadInput(
                f"{name} = {str(value)[:60]} makes networks far larger than its policy of {policy_bytes:,} bytes"
            )
