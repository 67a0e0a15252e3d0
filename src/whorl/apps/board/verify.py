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

from whorl import options
from whorl.apps.board import entry
from whorl.apps.board.entry import MIB, Entry
from whorl.apps.board.forms import EPISODES
from whorl.apps.board.submit import examine, machine
from whorl.envs.make import EnvKind, check_harmless, check_kwargs
from whorl.errors import BadInput, Damaged, WhorlError, in_words
from whorl.policies.policy import Policy
from whorl.spaces import action_size, flat_size
from whorl.training import folder, sizes
from whorl.training.catalog import config_from_json, config_to_json
from whorl.training.new_agent import new_agent
from whorl.training.plot import flat
from whorl.training.source import harmless
from whorl.transforms.chain import chain

NOISE = 2  # standard errors of the difference that another version or machine may make
CHANCE = EPISODES // 10  # episodes that may come out with the length, but not the return, that is claimed
ROOM = 64  # times the policy's bytes (at least a MiB) that the agent's networks may take


@dataclass(frozen=True)
class Verdict:
    confirmed: bool  # every episode came out with the return and the length that is claimed
    plausible: bool  # it did not, nothing speaks against the claim, and this is not where it was made
    claimed: float  # mean return
    found: float
    message: str  # one line


def verify(entry_or_id: str | Path, board: str | Path | None = None) -> Verdict:
    """Rebuilds the policy of an entry (its folder; or its id, with the board) and plays the protocol's episodes.

    Confirmed if all of them are equal. Plausible if versions or machine are not those that the entry names, the two means lie within
    NOISE standard errors of their difference, and episodes of equal length have equal returns but for CHANCE of them: the entry says
    itself where it was made, so this is no confirmation. Refuted otherwise. Raises BadInput when there is no such entry, or its
    environment is not installed here; Damaged when the entry is not as it was written, or its policy does not fit its config.
    """
    path = entry.find(entry_or_id, board)
    claim = entry.read(path)
    score, threshold = examine(policy(claim), _kind(claim))
    mean, std = float(score.returns.mean()), float(score.returns.std())
    same_length, same_return = score.lengths == claim.lengths, score.returns == claim.returns
    equal = int(np.sum(same_length & same_return))
    # the longest may have met a time limit, where lengths are equal whatever happened
    paired = same_length & (score.lengths < score.lengths.max())
    odd = int(np.sum(paired & ~np.isclose(score.returns, claim.returns, rtol=1e-5, atol=1e-5)))
    # by the spread that was found here: the claimed one may be invented
    reach = NOISE * math.sqrt(2 * std**2 / EPISODES)
    changed = _changed(claim)
    both = f"claimed {claim.mean:.6g} +- {claim.std:.3g}, found {mean:.6g} +- {std:.3g}"
    apart = f"{abs(mean - claim.mean):.3g} apart, {NOISE} standard errors are {reach:.3g}"
    elsewhere = f"not as at the submission: {', '.join(changed)}"
    confirmed, plausible = False, False
    if threshold != claim.reward_threshold:
        said = f"refuted: {both}; the reward threshold of {claim.world} is {threshold}, not {claim.reward_threshold}"
    elif equal == EPISODES:
        confirmed = True
        said = f"confirmed, all {EPISODES} episodes equal: mean return {mean:.6g} +- {std:.3g}"
    elif not changed:
        said = f"refuted: {both}; same versions and machine, but only {equal} of {EPISODES} episodes are equal"
    elif odd > CHANCE:
        said = f"refuted: {both}; {odd} episodes are as long as claimed and have another return"
    elif not abs(mean - claim.mean) <= reach:  # NaN is refuted, too
        said = f"refuted: {both}; {apart}; {elsewhere}"
    else:
        plausible = True
        said = f"not refuted: within noise, which cannot be told from a small lie here: {both}; {apart}; {elsewhere}"
    return Verdict(confirmed, plausible, claim.mean, mean, said)


def _changed(claim: Entry) -> list[str]:
    """What is not as it was when the entry was submitted, by name."""
    here: dict[str, Any] = folder.meta()
    pairs = {name: (claim.evaluated["versions"].get(name), version) for name, version in here["versions"].items()}
    pairs |= {name: (claim.evaluated["machine"][name], value) for name, value in machine(here).items()}
    return [name for name, (before, now) in pairs.items() if before != now]


def _kind(claim: Entry) -> EnvKind:
    """What its environment is made from. Raises BadInput for options that a stranger's entry should not have, and what makes none."""
    check_kwargs(claim.env_kwargs)
    where = str(claim.path / "entry.json")
    check_harmless(claim.env_kwargs, where)
    kind = EnvKind(claim.env, claim.env_kwargs, transforms=chain(harmless(claim.transforms, where)))
    try:
        kind.make().close()
    except WhorlError:
        raise
    except Exception as error:  # the options are a stranger's
        raise BadInput(f"{claim.path}: {claim.world} cannot be made here: {in_words(error)}") from None
    return kind


def policy(claim: Entry) -> Policy:
    """The policy of an entry, ready to act. Raises BadInput for an unknown environment, Damaged for a policy that does not fit."""
    data = entry.contents(claim.path)["policy.safetensors"]
    env = _kind(claim).make()
    try:
        config = config_from_json(claim.agent, claim.config)
        options.check(config)
        if foreign := flat(claim.config).keys() - flat(config_to_json(claim.agent, config)).keys():
            raise BadInput(f"the config of {claim.agent} has no field {min(foreign)}")
        check_sizes(config, len(data), flat_size(env.observation_space), action_size(env.action_space))
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


def check_sizes(config: object, policy_bytes: int, observation: int, actions: int) -> None:
    """Raises BadInput for a config whose networks would be far larger than the policy beside it: building them could take all memory.

    config, observation, actions: see `sizes.numbers`.
    """
    if 4 * sizes.numbers(config, observation, actions, EPISODES) > ROOM * max(policy_bytes, MIB):
        raise BadInput(f"{sizes.named(config)} make networks far larger than its policy of {policy_bytes:,} bytes")
