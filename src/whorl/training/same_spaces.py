"""The spaces that a policy was trained with, as a note in config.json, and whether an environment has the same."""

from __future__ import annotations

from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env, check_has_spaces
from whorl.errors import BadInput
from whorl.spaces import describe


def noted(known: Env | Dataset) -> str:
    """ "observation Box(4), action Discrete(2)": what an agent sees of them; bounds of a Box are no part of it."""
    check_has_spaces(known, _name(known))
    return f"observation {describe(known.observation_space)}, action {describe(known.action_space)}"


def check_spaces(note: str, known: Env | Dataset) -> None:
    """Raises BadInput where a policy that was trained with the noted spaces would act in others, EnvError for an environment without any.
    note: "" where nobody knows which they were."""
    if (found := noted(known)) != (note or found):
        raise BadInput(
            f"the policy was trained with {note}, and {_name(known)} has {found}: pass one with the same spaces"
        )


def _name(known: Env | Dataset) -> str:
    return repr(known) if isinstance(known, Env) else "the data"
