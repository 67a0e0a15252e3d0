"""The table of environments and agents: found by building, equal to the page in docs."""

from difflib import unified_diff
from pathlib import Path

import gymnasium
import pytest
from gymnasium import spaces

from whorl.agents.reinforce import REINFORCE
from whorl.envs import native
from whorl.envs.adapters import gymnasium as adapter
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.training import compatibility
from whorl.training.catalog import AGENTS, agent_class, find, presets

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


@pytest.fixture(scope="module")
def rows():
    return {row.id: row for row in compatibility.table()}


@pytest.mark.box2d  # the page is written where every package of FAMILIES is installed
def test_the_page_is_the_table(rows):
    written, found = PAGE.read_text().splitlines(), compatibility.markdown([*rows.values()]).splitlines()
    if changed := [line for line in unified_diff(written, found, n=0, lineterm="") if line[:3] not in ("---", "+++")]:
        pytest.fail(
            f"an agent or an environment came, went or changed: run `{compatibility.COMMAND} > docs/environments.md`\n"
            + "\n".join(changed[:6])
        )


def test_all_native_worlds_and_the_newest_of_each_family():
    ids = compatibility.environments()
    assert len(ids) == len(set(ids)) and set(ids) > set(native.WORLDS)
    assert {"LunarLander-v3", "FrozenLake8x8-v1", "Blackjack-v1", "CarRacing-v3", "Acrobot-v1"} <= set(ids)
    assert not [id for id in ids if "/" in id or id.startswith(("Ant", "Gym"))]


def test_only_the_newest_version(monkeypatch):
    spec = gymnasium.registry["FrozenLake-v1"]
    newer = gymnasium.envs.registration.EnvSpec("FrozenLake-v2", entry_point=spec.entry_point)
    monkeypatch.setitem(gymnasium.registry, "FrozenLake-v2", newer)
    ids = compatibility.environments()
    assert "FrozenLake-v2" in ids and "FrozenLake-v1" not in ids


def test_a_row_says_what_the_environment_says(rows):
    row = rows["CartPole-v1"]
    assert (row.origin, row.observation, row.size, row.action) == ("native", "Box(4)", 4, "Discrete(2)")
    assert (row.max_episode_steps, row.reward_threshold, row.extra) == (500, 475.0, "")
    row = rows["Blackjack-v1"]
    assert row.origin == "gymnasium" and row.size == 32 + 11 + 2 and row.max_episode_steps is None
    assert rows["FrozenLake-v1"].reward_threshold == gymnasium.spec("FrozenLake-v1").reward_threshold
    assert rows["LunarLander-v3"].extra == "box2d"


def test_every_agent_has_an_answer_and_it_is_what_building_says(rows):
    assert all([*row.reasons] == [*AGENTS] for row in rows.values())
    for id in ("CartPole-v1", "Pendulum-v1", "FrozenLake-v1"):
        env = make_env(id)
        for agent, why in rows[id].reasons.items():
            cls, config = agent_class(agent), find(agent, id).config
            if why:
                with pytest.raises(BadInput) as raised:
                    cls.build(env.observation_space, env.action_space, config)
                assert str(raised.value) == why
            else:
                cls.build(env.observation_space, env.action_space, config)


def only_discrete(monkeypatch):
    """REINFORCE as an agent that cannot do continuous actions; returns the list of spaces it was built for."""
    build, built = REINFORCE.build.__func__, []

    def restricted(cls, observation_space, action_space, config):
        built.append((observation_space, action_space))
        if not isinstance(action_space, spaces.Discrete):
            raise Incompatible(f"REINFORCE needs Discrete actions, got {type(action_space).__name__}")
        return build(cls, observation_space, action_space, config)

    monkeypatch.setattr(REINFORCE, "build", classmethod(restricted))
    return built


def test_an_agent_that_cannot_is_named_with_its_reason(monkeypatch):
    built = only_discrete(monkeypatch)
    rows = compatibility.table(["random", "reinforce"])
    reasons = {row.id: row.reasons for row in rows}
    assert reasons["CartPole-v1"] == {"random": "", "reinforce": ""}
    assert reasons["Pendulum-v1"] == {"random": "", "reinforce": "REINFORCE needs Discrete actions, got Box"}
    tuned = len(presets("reinforce"))  # once for each pair of spaces, and once more for each preset
    assert len({str(pair) for pair in built}) + tuned >= len(built)
    assert len(built) < len(rows)

    body, notes = compatibility.cells(rows)
    assert notes[0] == "1. REINFORCE needs Discrete actions, got Box"
    lines = {line[0]: line for line in body}
    assert lines["CartPole-v1"][-2:] == ["yes", "yes"] and lines["Pendulum-v1"][-2:] == ["yes", "1"]
    page = compatibility.markdown(rows)
    assert "| Pendulum-v1 | native | - | Box(3) | 3 | Box(1) | 200 | - | yes | 1 |" in page
    assert page.endswith("\n" + "\n".join(notes) + "\n") and compatibility.MARKER in page


def test_a_missing_package_is_named_by_its_extra(monkeypatch):
    def missing(*arguments, **options):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(compatibility, "FAMILIES", ("box2d",))
    monkeypatch.setattr(adapter.Gymnasium, "__init__", missing)
    rows = {row.id: row for row in compatibility.table(["random", "ppo"])}
    row = rows["LunarLander-v3"]
    assert (row.extra, row.known, row.observation, row.size) == ("box2d", False, "?", None)
    body, notes = compatibility.cells([*rows.values()])
    assert [line for line in body if line[0] == row.id] == [
        ["LunarLander-v3", "gymnasium", "box2d", "?", "-", "?", "-", "-", "1", "1"]
    ]
    assert notes == ['1. nothing is known without its package, which is missing: pip install "whorl[box2d]"']


def test_an_environment_that_cannot_be_made_is_an_error(monkeypatch):
    """Without an extra to blame, it is not hidden in a table."""
    spec = gymnasium.envs.registration.EnvSpec("Broken-v0", entry_point="gymnasium.envs.toy_text.nowhere:Nothing")
    monkeypatch.setitem(gymnasium.registry, "Broken-v0", spec)
    with pytest.raises(BadInput, match="Broken-v0 needs a package that is missing"):
        compatibility.table([])
