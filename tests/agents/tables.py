"""Networks whose values are written by hand: a linear layer on one-hot states, so that W[:, s] is q(s, .)."""

import torch
from gymnasium import spaces

from whorl import batch
from whorl.training.catalog import agent_class
from whorl.training.config import override


def agent_on_table(name, values, target_values, **fields):
    """An agent whose net gives `values` [S][A] or [S][A][K] of outputs; its target net gives `target_values`."""
    cls = agent_class(name)
    values, target_values = torch.tensor(values), torch.tensor(target_values)
    states, actions = values.shape[:2]
    observation_space = spaces.Box(0.0, 1.0, (states,))
    config = override(cls.Config(), {"hidden": (), **fields})
    agent = cls.build(observation_space, spaces.Discrete(actions), config)
    for q, numbers in ((agent.policy.q, values), (agent.target.module, target_values)):
        write(getattr(q, "net", q).advantage[-1], numbers)
    return agent


def write(layer, values):
    """W[:, s] = values[s], no bias."""
    with torch.no_grad():
        layer.weight.copy_(values.flatten(1).T)
        layer.bias.zero_()


def rows(state, action, reward, successor, terminated, states=2, **more):
    """A batch [B]: states as numbers, one-hot in the batch. Keys with `next_` go into `next`."""
    one_hot = lambda s: torch.nn.functional.one_hot(torch.tensor(s), states).float()  # noqa: E731
    n = len(state)
    inner = {key.removeprefix("next_"): value for key, value in more.items() if key.startswith("next_")}
    outer = {key: value for key, value in more.items() if not key.startswith("next_")}
    entries = {
        "observation": one_hot(state),
        "action": torch.tensor(action),
        "next": {
            "observation": one_hot(successor),
            "reward": torch.tensor(reward),
            "terminated": torch.tensor(terminated),
            "truncated": ~torch.tensor(terminated),  # which must not matter
            **inner,
        },
        **outer,
    }
    return batch.make(entries, (n,))
