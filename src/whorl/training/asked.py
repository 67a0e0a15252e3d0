"""What a run asks of its collector beside rollouts: from the settings to the collector."""

from __future__ import annotations

from whorl import options
from whorl.collectors.tally import DISCOUNTED_RETURN, Tally, ways_of
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Fed
from whorl.policies.random import Random
from whorl.training.build import Parts
from whorl.training.settings import Settings


def ask(parts: Parts, settings: Settings, config: Fed) -> Tally | None:
    """Tells the collector how to begin, and makes it write down what `settings.info_keys` names; None: nothing.

    Raises BadInput or Incompatible where it cannot do the one or the other.
    """
    _decorrelate(parts, settings.decorrelate)
    ways = ways_of(settings.info_keys)
    if not ways:
        return None
    if parts.collector is None or parts.collector.env.device != "cpu" or parts.loop.steps_itself:
        raise BadInput(
            "info_keys reads what environments say, step by step, and here they are stepped by workers, by a compiled loop, on another "
            "device, or not at all: leave it out"
        )
    discount = 1.0
    if DISCOUNTED_RETURN in ways:
        discount = options.value(config, "discount", f"info_keys asks for {DISCOUNTED_RETURN}")
    tally = parts.collector.recorder.tally = Tally(ways, parts.collector.env.num_envs, discount)
    return tally


def _decorrelate(parts: Parts, most: int) -> None:
    """Raises BadInput or Incompatible where the environments cannot take random actions one by one before the first rollout."""
    if not most:
        return
    env, collector = parts.env, parts.collector
    if env is None or collector is None or parts.loop.steps_itself or parts.agent.config.feed.unit == "episode":
        raise BadInput(
            f"decorrelate = {most} takes random actions before the first rollout of a collector in this process, and here workers or a "
            "compiled loop step, every rollout begins with a reset, or nothing is stepped: leave it out"
        )
    if "rows" not in env.partial:
        raise Incompatible(
            f"decorrelate = {most} steps some environments while the others stand, and {env!r} steps all at once: leave it out"
        )
    Random(env.action_space)
    collector.decorrelate = most
