"""The mission of MiniGrid and BabyAI: left out or given as numbers, by name, and never in silence."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from gymnasium import spaces

from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError, Incompatible

minigrid = pytest.importorskip("minigrid", reason="needs the extra minigrid: pip install 'whorl[minigrid]'")
from whorl.envs.adapters.minigrid import WORDS, numbers  # noqa: E402


def test_words_are_numbered_by_their_place():
    assert numbers("Go to the red ball, then", 9, "it").tolist() == [18, 47, 45, 40, 7, 1, 46, 0, 0]
    assert [WORDS[n - 1] for n in (18, 47, 45, 40, 7, 1, 46)] == ["go", "to", "the", "red", "ball", ",", "then"]
    assert len(set(WORDS)) == len(WORDS) and "" not in WORDS
    with pytest.raises(EnvError, match="it: the mission 'go to Mars' has the unknown word 'mars': say mission='drop'"):
        numbers("go to Mars", 9, "it")
    with pytest.raises(EnvError, match="has 3 words, expected at most 2"):
        numbers("go to the", 2, "it")


def test_a_mission_as_numbers():
    env = make_env("MiniGrid-Fetch-5x5-N2-v0", 3, seed=1, mission="tokens")
    missions = [row.unwrapped.mission for row in env._engine.envs]
    assert env.observation_space["mission"] == spaces.MultiDiscrete([len(WORDS) + 1] * 6)  # "you must fetch a red ball"
    seen = env.reset()["mission"]
    missions = [row.unwrapped.mission for row in env._engine.envs]
    assert [" ".join(WORDS[n - 1] for n in row if n) for row in seen] == missions
    levels = [make_env(id, 1, mission="tokens") for id in ("BabyAI-BossLevel-v0", "BabyAI-MiniBossLevel-v0")]
    assert all((level.reset(seed)["mission"] > 0).any() for level in levels for seed in range(5))


def test_a_mission_left_out(caplog):
    with caplog.at_level(logging.WARNING, "whorl"):
        env = make_env("MiniGrid-Fetch-8x8-N3-v0", 2, mission="drop")
        assert (
            "MiniGrid-Fetch-8x8-N3-v0: the mission is left out, and it differs from episode to episode" in caplog.text
        )
        caplog.clear()
        assert set(make_env("MiniGrid-Empty-5x5-v0", mission="drop").observation_space) == {"direction", "image"}
        assert not caplog.text  # where there is but one mission, nothing is lost
    assert set(env.reset()) == {"direction", "image"}
    assert env.made_from.kwargs == {"mission": "drop"}


def test_without_a_word_for_it():
    with pytest.raises(
        Incompatible,
        match="MiniGrid-Empty-5x5-v0 observes its mission as a text: say mission='tokens' .* or mission='drop'",
    ):
        make_env("MiniGrid-Empty-5x5-v0")
    with pytest.raises(BadInput, match="mission is 'drop' or 'tokens', got 'words'"):
        make_env("MiniGrid-Empty-5x5-v0", mission="words")
    assert make_env("MiniGrid-Empty-5x5-v0", wrappers=[minigrid.wrappers.ImgObsWrapper]).reset().shape == (1, 7, 7, 3)


def test_every_level_has_numbers():
    """A word that the list lacks would end a run in the middle."""
    import gymnasium

    ids = [id for id in gymnasium.registry if id.startswith("MiniGrid-") and "WFC" not in id]
    for id in ids[::6]:
        env = make_env(id, mission="tokens")
        assert np.isfinite(env.reset(3)["mission"]).all()
