"""How a replay agent looks at a batch: row by row, or along its sequences, by networks with memories of their own.

What stands here is `normalizer(observation)`, `td` and the batch itself where the policy has no memory.
Along sequences as in R2D2, Kapturowski et al. 2019: memories that act start from the state that was stored, others from 0; `feed.burn_in`
rows only warm them up, without a gradient; what is learned from is the `feed.length` rows after these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.parts import td
from whorl.batch import Batch, Tree, ended, get
from whorl.errors import BadInput, Incompatible
from whorl.functional.returns import n_step_return
from whorl.nets.rnn import STATE, Memory, memory_of
from whorl.spaces import tree_map


def check(agent: Agent) -> None:
    """Raises Incompatible for a memory that is given single rows, BadInput for rows that warm no memory up."""
    feed = agent.config.feed
    if agent.policy.recurrent and feed.replays and not feed.length:
        also = " (relabelled goals need single rows, so that hindsight has none)" if feed.relabel != "none" else ""
        raise Incompatible(
            f"a memory learns along sequences, and {type(feed).__name__} draws single rows{also}: feed = Sequences(...), or memory = 'none'"
        )
    if feed.burn_in and not agent.policy.recurrent:
        raise BadInput(
            f"feed.burn_in = {feed.burn_in} rows warm a memory up, and {type(agent).__name__} has none here: set memory, or use burn_in = 0"
        )


def learned_rows(agent: Agent, batch: Batch) -> Batch:
    """The rows that losses are means over: all but those of the burn-in."""
    burn_in = agent.config.feed.burn_in
    return batch[burn_in:] if burn_in else batch


def here(agent: Agent, net: nn.Module, batch: Batch, acts: bool = True) -> Tree:
    """What `net` is asked with in the rows that are learned from. acts: its memory is the policy's, or a copy of that."""
    memory = memory_of(net)
    if memory is None:
        return agent.policy.normalizer(batch["observation"])
    observation, state, begins = _warm(agent, memory, batch, acts)
    return memory.unroll(observation, state, begins)[0]


@torch.no_grad()
def after(agent: Agent, net: nn.Module, batch: Batch, acts: bool = True) -> Tree:
    """What `net` is asked with at `next.observation` of these rows, with all that it remembers there."""
    memory, successor = memory_of(net), agent.policy.normalizer(batch["next"]["observation"])
    if memory is None:
        return successor
    observation, state, begins = _warm(agent, memory, batch, acts)
    return memory.foresee(observation, _from(successor, agent.config.feed.burn_in), state, begins)


def td_along(agent: Agent, batch: Batch, next_value: Tensor, discount: float) -> Tensor:
    """`td`, with n-step returns that the buffer has summed; a memory knows no successor outside its sequence, so its n are summed here:
    fewer before an end, of the episode or of the sequence. No gradient."""
    if not agent.policy.recurrent:
        return td(batch, next_value, discount)
    next, over = batch["next"], _begins(batch).roll(-1, 0)  # of the last row nothing is asked
    rows = next["reward"], next_value, next["terminated"], over, get(batch, "next.discount", discount)
    return n_step_return(*rows, agent.config.feed.n_step).detach()


def _begins(batch: Batch) -> Tensor:
    """bool [T, B]: nothing is remembered from the row before. An episode may end without a next row (padding), or begin without an end (it
    was lost)."""
    begins = batch["is_first"].clone()
    begins[1:] |= ended(batch)[:-1]
    return begins


def _warm(agent: Agent, memory: Memory, batch: Batch, acts: bool) -> tuple[Tree, Tensor, Tensor]:
    """(observations, state before the first, where episodes begin) of the rows that are learned from."""
    burn_in, begins = agent.config.feed.burn_in, _begins(batch)
    observation = agent.policy.normalizer(batch["observation"])
    stored = get(batch, STATE) if acts else None  # recorded data may have none
    state = memory.initial(batch.shape[1]) if stored is None else stored[0]
    if burn_in:
        with torch.no_grad():
            _, state = memory.unroll(tree_map(lambda x: x[:burn_in], observation), state, begins[:burn_in])
    return _from(observation, burn_in), state, begins[burn_in:]


def _from(tree: Tree, row: int) -> Tree:
    return tree_map(lambda x: x[row:], tree)
