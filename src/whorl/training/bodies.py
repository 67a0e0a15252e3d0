"""How an agent's optimizer steps are computed: by autograd (eager), packed, or each as one compiled graph. Equal but for rounding."""

from __future__ import annotations

from whorl.agents.agent import Agent
from whorl.errors import BadInput, Incompatible
from whorl.training.settings import Update


def choose(agent: Agent, update: Update) -> tuple[Update, str]:
    """Give an agent the body that was asked for: its name, and a line for people where it was "auto" that chose.

    "auto" is "packed" where the networks are small MLPs on the CPU and the agent has a loss by rows, else "eager". To be called before
    anybody acts with the agent. Raises BadInput where a body that was asked for by name cannot be.
    """
    name = type(agent).__name__
    if update == "compiled":
        if agent.uncompiled:
            raise BadInput(f"{agent.uncompiled}. Leave compile=True out")
        agent.compiled = True
    if update in ("eager", "compiled"):
        return update, ""
    try:
        _pack(agent)
    except Incompatible as reason:
        if update == "packed":
            raise BadInput(f"update='packed' is not for this {name}: {reason}. Use update='auto' or 'eager'") from None
        return "eager", f"update: eager ({reason})"
    return (
        "packed",
        "update: packed (without autograd; update=eager is the same but for rounding)" if update == "auto" else "",
    )


def _pack(agent: Agent) -> None:
    if agent.config.feed.own_envs:
        raise Incompatible("asynchronous workers take eager steps on shared weights")
    if not agent.packed:  # numba is slow to import
        raise Incompatible(f"{type(agent).__name__} has no loss by rows")
    from whorl.agents.packed import pack

    pack(agent)
