"""What a run folder names for people and cannot make again, because a name in it imports nothing: an agent, an encoder and functions of the
user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from whorl import options
from whorl.batch import Numbers
from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.feeds import Fed
from whorl.nets.encoder import EncoderFactory
from whorl.training.catalog import AgentLike, agent_class, agent_name, known_agents
from whorl.training.new_agent import new_agent
from whorl.training.settings import Settings


def named(path: Path, agent: str) -> str:
    """The agent that a run names. Raises BadInput for an agent that only its user can bring."""
    if ":" in agent:
        cls = re.split("[:.]", agent)[-1]
        raise BadInput(
            f"{path} was trained with an agent of its user's, {agent}, and a run folder imports nothing: pass the class, "
            f"whorl.load(path, agent={cls}) or whorl.resume(path, agent={cls})"
        )
    return agent


def check_same(path: Path, written: str, agent: AgentLike) -> None:
    """Raises BadInput for another agent than the run's. A class may have moved to another module since, or have got a name."""
    name = agent_name(agent)
    if name == written or ":" not in written and written not in known_agents():
        return
    names = [each.rpartition(":")[2] if ":" in each else agent_class(each).__qualname__ for each in (written, name)]
    if names[0] != names[1]:
        raise BadInput(f"{path} was trained with the agent {written}, not with {name}: pass that one")


def encoder_name(encoder: EncoderFactory | None) -> str:
    """For people to read: nothing imports it."""
    if encoder is None:
        return ""
    named = encoder if hasattr(encoder, "__qualname__") else type(encoder)
    return f"{named.__module__}:{named.__qualname__}"


def check_encoder(path: Path, settings: Settings, encoder: EncoderFactory | None) -> None:
    """Raises BadInput where a run has an encoder of its user's and none is passed, or the other way round."""
    if settings.encoder and encoder is None:
        name = re.split("[:.]", settings.encoder)[-1]
        raise BadInput(
            f"{path} was trained with an encoder of its user's, {settings.encoder}, and a run folder imports nothing: pass it, "
            f"whorl.load(path, encoder={name}) or whorl.resume(path, encoder={name})"
        )
    if encoder is not None and not settings.encoder:
        raise BadInput(f"{path} was trained without an encoder of its user's: leave encoder out")


def functions_again(path: Path, agent: AgentLike, config: Numbers, given: Mapping[str, object]) -> dict[str, object]:
    """A config as a file holds it, with the functions of its user's, which the file only names, in their places. A function may have moved
    to another module since. Raises BadInput for one that is not given, and for another one."""
    fields = {field.name for field in options.fields(agent_class(agent).Config) if field.function}
    again = {name: value for name, value in config.items() if name in fields and ":" in str(value)}
    for name, value in again.items():
        function, came = str(value).rpartition(":")[2][:100], given.get(name)
        if came is None:
            raise BadInput(
                f"{path} has a function of its user's, {name} = {str(value)[:200]}, and a file imports nothing: pass it again, "
                f"{name}={function}"
            )
        if not callable(came) or options.name_of(came).rpartition(":")[2] != function:
            raise BadInput(
                f"{path} has {name} = {str(value)[:200]}, and {options.shown(came)} came: pass that function"
            )
    return {**config, **{name: given[name] for name in again}}


def check_hidden(
    agent: AgentLike, source: Env | Dataset, config: Fed, encoder: EncoderFactory, hidden: Sequence[int]
) -> None:
    """Raises BadInput for `hidden` beside an encoder that leaves no layer of such a size: it would do nothing."""
    others = options.override(config, {"hidden": (*hidden, 7 + sum(hidden))})
    one, other = ([p.shape for p in new_agent(agent, source, c, 0, encoder).parameters()] for c in (config, others))
    if one == other:
        raise BadInput(
            f"hidden = {tuple(hidden)} does nothing here: the encoder stands in the place of all hidden layers of {agent_name(agent)}; "
            "leave hidden out"
        )
