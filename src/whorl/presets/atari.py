"""What presets on Atari share: the games, and what lies between them and a learner."""

from whorl.feeds import Fed
from whorl.presets import Preset

GAMES = ("ALE/Pong-v5", "ALE/Breakout-v5", "ALE/Qbert-v5", "ALE/Seaquest-v5")


def on_atari(config: Fed, num_envs: int, source: str, total_steps: int = 10_000_000) -> dict[str, Preset]:
    """One preset for all of `GAMES`: lives end episodes, rewards are clipped; steps are four frames each."""
    preset = Preset(config, num_envs, total_steps, source, transforms=("end_of_life", "clip_reward"))
    return dict.fromkeys(GAMES, preset)
