"""DQN's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/dqn.yml."""

from dataclasses import replace

from whorl.agents.dqn import DQNConfig
from whorl.feeds import Replay, Sequences
from whorl.presets import Preset
from whorl.presets.atari import on_atari

_REMEMBERS = DQNConfig(
    learning_rate=1e-3,
    target_rate=0.02,
    epsilon_steps=20_000,
    hidden=(64,),
    activation="tanh",
    memory="gru",
    memory_width=64,
)

PRESETS = {
    **on_atari(
        DQNConfig(
            learning_rate=1e-4,
            target_every=250,
            target_rate=1.0,
            epsilon_steps=1_000_000,
            epsilon_min=0.01,
            feed=Replay(batch_size=32, capacity=1_000_000, replay_ratio=0.25, warmup=80_000, storage="frames"),
        ),
        num_envs=8,
        source="Zoo and CleanRL's dqn_atari.py, with double Q-learning and a full buffer",
    ),
    "CartPole-v1": Preset(
        DQNConfig(
            learning_rate=1e-3,
            target_rate=0.02,
            epsilon_steps=10_000,
            feed=Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000),
        ),
        num_envs=8,
        total_steps=100_000,
        source="found here: a target that follows slowly, double Q-learning, few updates on many rows",
    ),
    "Acrobot-v1": Preset(
        DQNConfig(
            learning_rate=6.3e-4,
            target_rate=0.02,
            epsilon_steps=12_000,
            hidden=(256, 256),
            feed=Replay(batch_size=128, capacity=50_000, replay_ratio=0.25, warmup=1_000),
        ),
        num_envs=8,
        total_steps=100_000,
        source="Zoo, with double Q-learning, a target that follows slowly, and a quarter of its updates",
    ),
    "MountainCar-v0": Preset(
        DQNConfig(
            learning_rate=4e-3,
            discount=0.98,
            target_every=300,
            target_rate=1.0,
            epsilon_steps=24_000,
            epsilon_min=0.07,
            hidden=(256, 256),
            feed=Replay(batch_size=128, capacity=10_000, replay_ratio=0.5, warmup=1_000, steps=16),
        ),
        num_envs=1,
        total_steps=120_000,
        source="Zoo, with double Q-learning",
    ),
    "LunarLander-v3": Preset(
        DQNConfig(
            learning_rate=6.3e-4,
            target_rate=0.01,
            epsilon_steps=60_000,
            hidden=(256, 256),
            feed=Replay(batch_size=128, capacity=200_000, replay_ratio=0.25, warmup=2_000),
        ),
        num_envs=8,
        total_steps=500_000,
        source="Zoo, with double Q-learning, a target that follows slowly, a quarter of its updates, more rows and steps",
    ),
    "BitFlipping15-v0": Preset(
        DQNConfig(
            learning_rate=1e-3,
            discount=0.98,
            target_rate=0.02,
            epsilon_steps=20_000,
            hidden=(256,),
            feed=Replay(batch_size=128, capacity=200_000, replay_ratio=0.25, warmup=1_000, relabel="future"),
        ),
        num_envs=8,
        total_steps=50_000,
        source="Andrychowicz et al. 2017, appendix A, with a target that follows slowly; relabel='none' is the baseline that fails",
    ),
    "RepeatPrevious-v0": Preset(
        replace(
            _REMEMBERS,
            discount=0.5,
            feed=Sequences(length=20, burn_in=8, batch_size=32, capacity=50_000, replay_ratio=1 / 64, warmup=5_000),
        ),
        num_envs=16,
        total_steps=50_000,
        source="found here; R2D2 (Kapturowski et al. 2019) without n-step returns, rescaled values and priorities",
        transforms=({"name": "scale_reward", "scale": 48.0},),  # 1 for a right answer
    ),
    "TMaze20-v0": Preset(
        replace(
            _REMEMBERS,
            gate_bias=2.0,
            feed=Sequences(length=40, n_step=5, batch_size=32, capacity=50_000, replay_ratio=1 / 64, warmup=5_000),
        ),
        num_envs=16,
        total_steps=60_000,
        source="found here; R2D2 with 5-step returns",
    ),
}
