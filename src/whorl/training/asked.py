"""What a run asks of `info`: from the setting to the collector."""

from __future__ import annotations

from whorl import options
from whorl.collectors.tally import DISCOUNTED_RETURN, Tally, ways_of
from whorl.errors import BadInput
from whorl.feeds import Fed
from whorl.training.build import Parts
from whorl.training.settings import Settings


def ask(parts: Parts, settings: Settings, config: Fed) -> Tally | None:
    """Makes the collector write down what `settings.info_keys` names; None: nothing. Raises BadInput where no collector of this process
    looks at single steps on the CPU."""
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
