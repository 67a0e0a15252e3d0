"""How an agent's optimizer steps are computed: by autograd (eager), packed, or each as one compiled graph. Equal but for rounding."""

from __future__ import annotations

from whorl.agents.agent import Agent
from whorl.errors import BadInput, Incompatible
from whorl.nets.precision import Hidden, cost, supported
from whorl.training.settings import Precision, Update


def choose(agent: Agent, update: Update, precision: Precision = "float32") -> tuple[Update, str]:
    """Give an agent the body that was asked for: its name, and a line for people where it was "auto" that chose.

    "auto" is "packed" where the networks are small MLPs on the CPU and the agent has a loss by rows, else "eager". To be called before
    anybody acts with the agent. Raises BadInput where a body or a precision that was asked for by name cannot be.
    """
    name = type(agent).__name__
    if precision == "bfloat16":
        _round(agent, update)
        chosen: Update = "eager" if update == "auto" else update
        said = (
            f"precision: bfloat16, a product of 256 x 256 numbers takes {cost():.1f} times as long as in float32 here"
        )
        return choose(agent, chosen)[0], f"{said}; update: {chosen}"
    if update == "compiled":
        if agent.policy.recurrent:
            raise BadInput(
                f"update='compiled' makes one graph, and a memory stops where episodes happen to begin, so {name} with memory has none. "
                "Use update='auto'"
            )
        if agent.uncompiled:
            raise BadInput(f"{agent.uncompiled}. Use update='auto'")
        agent.compiled = True
    if update in ("eager", "compiled"):
        return update, ""
    try:
        _pack(agent)
    except Incompatible as reason:
        if update == "packed":
            raise BadInput(f"update='packed' is not for this {name}: {reason}. Use update='auto'") from None
        return "eager", f"update: eager ({reason})" if agent.optimizers() else ""
    return (
        "packed",
        "update: packed (without autograd; eager gives the same but for rounding)" if update == "auto" else "",
    )


def _round(agent: Agent, update: Update) -> None:
    """Products in bfloat16. Raises BadInput where they would change nothing, or cannot be."""
    out = "leave precision out"
    hidden = [part for part in agent.modules() if isinstance(part, Hidden) and any(True for _ in part.parameters())]
    if update == "packed":
        raise BadInput(
            f"precision='bfloat16' changes nothing in packed steps, which are float32: use update='eager', or {out}"
        )
    if not hidden or not agent.optimizers() or agent.config.feed.own_envs:
        raise BadInput(
            f"precision='bfloat16' is for gradients through hidden layers of whorl's; {type(agent).__name__} has none: {out}"
        )
    if agent.env_steps.device.type != "cpu":
        raise BadInput(f"precision='bfloat16' is for the CPU, and the agent learns on {agent.env_steps.device}: {out}")
    if not supported():
        raise BadInput(f"precision='bfloat16' needs a CPU with instructions for it, and this one has none: {out}")
    for part in hidden:
        part.rounded = True


def _pack(agent: Agent) -> None:
    if agent.config.feed.own_envs:
        raise Incompatible("asynchronous workers take eager steps on shared weights")
    if agent.policy.recurrent:
        raise Incompatible("its networks have a memory")
    if not agent.packed:  # numba is slow to import
        raise Incompatible(f"{type(agent).__name__} has no loss by rows")
    from whorl.agents.packed import pack

    pack(agent)
