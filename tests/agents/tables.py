"""Networks whose values are written by hand: linear layers on one-hot states, so that W[:, s] is q(s, .), and lines."""

import math

import torch
from gymnasium import spaces

from whorl import batch
from whorl.options import override
from whorl.policies.squashed import Squashed
from whorl.training.catalog import agent_class


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


BOX, ACTIONS = spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (1,))
ROWS = [  # s, a, r, s', terminated, z', z
    (0.5, 1.0, 1.0, -0.4, False, 0.3, -1.0),
    (-1.0, -0.5, -2.0, 0.8, True, -1.2, 0.4),
    (0.2, 0.3, 0.5, 1.0, False, 1.1, 0.9),
]


class Features(torch.nn.Module):
    """The observation itself, a vector of length 1."""

    width = 1

    def forward(self, observation):
        return observation


class Lines(torch.nn.Module):
    """Q_i(s, a) = v_i s + w_i a."""

    def __init__(self, v, w):
        super().__init__()
        self.v, self.w = (torch.nn.Parameter(torch.tensor(x).view(-1, 1)) for x in (v, w))

    def forward(self, observation, action):
        return self.v * observation[..., 0] + self.w * action[..., 0]


def transitions(table, **more):
    """A batch [B] of rows (s, a, r, s', terminated, *z): noise [B, 1] of one z, [B, n, 1] of more.

    More keys: `next_...` goes into `next`, None is left out.
    """
    s, a, r, s2, d, *z = zip(*table, strict=True)
    column = lambda x: torch.tensor(x)[:, None]  # noqa: E731
    entries = {"observation": column(s), "action": column(a)}
    next = {"observation": column(s2), "reward": torch.tensor(r), "terminated": torch.tensor(d)}
    if z:
        entries["noise"] = column(z[0]) if len(z) == 1 else torch.stack([column(x) for x in z], 1)
    for key, value in more.items():
        if value is None:
            continue
        (next if key.startswith("next_") else entries)[key.removeprefix("next_")] = torch.tensor(value)
    return batch.make(entries | {"next": next}, (len(table),))


def squashed():
    """mean = 0.5 s, log std = -0.5 + 0.25 s: what `sample` computes."""
    policy = Squashed(Features(), ACTIONS)
    with torch.no_grad():
        policy.head.weight.copy_(torch.tensor([[0.5], [0.25]]))
        policy.head.bias.copy_(torch.tensor([0.0, -0.5]))
    return policy


def sample(s, z):
    """(action, log pi) from the formulas of Haarnoja et al. 2018b, appendix C, the density in units of half the range."""
    std = math.exp(-0.5 + 0.25 * s)
    u = 0.5 * s + std * z
    normal = -0.5 * z * z - math.log(std) - 0.5 * math.log(2 * math.pi)
    return 2 * math.tanh(u), normal - math.log(1 - math.tanh(u) ** 2)
