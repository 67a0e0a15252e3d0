"""TQC's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/tqc.yml."""

from whorl.agents.tqc import TQCConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        TQCConfig(
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            hidden=(64, 64),
            critic_hidden=(64, 64),
            feed=Replay(batch_size=128, capacity=20_000, warmup=100),
        ),
        num_envs=1,
        total_steps=8_000,
        source="Zoo, with noise of the policy in place of state-dependent exploration, smaller batches and fewer steps",
    ),
}
