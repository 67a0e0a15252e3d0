"""CrossQ's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/crossq.yml."""

from whorl.agents.crossq import CrossQConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        CrossQConfig(
            policy_delay=2,
            hidden=(64, 64),
            critic_hidden=(128, 128),
            feed=Replay(batch_size=128, capacity=20_000, warmup=100),
        ),
        num_envs=1,
        total_steps=8_000,
        source="Zoo, with smaller networks and batches and fewer steps",
    ),
}
