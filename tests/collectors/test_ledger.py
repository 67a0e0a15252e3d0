"""The ledger: progress and episodes, by rollout, by step and from elsewhere, against a plain count."""

import json

import numpy as np
import pytest

from whorl.collectors.ledger import Episode, Ledger


def played(T, N, seed=0):
    """reward, terminated, truncated, mask, each [T, N]."""
    random = np.random.default_rng(seed)
    flags = random.random((2, T, N)) < 0.15
    return random.normal(size=(T, N)).astype(np.float32), flags[0], flags[1], random.random((T, N)) < 0.8


def test_rollouts_and_steps_count_the_same():
    whole, single, plain = Ledger(3), Ledger(3), [(0.0, 0)] * 3
    is_first, lost = np.ones(3, bool), 0
    for part in range(6):
        rollout = played(10, 3, part)
        whole.add(*rollout)
        ended = []
        for t in range(10):
            reward, terminated, truncated, mask = (x[t] for x in rollout)
            assert single.add_step(reward, terminated, truncated, mask, is_first)
            assert np.array_equal(is_first, terminated | truncated | ~mask)
            for i in range(3):
                if mask[i]:
                    plain[i] = plain[i][0] + float(reward[i]), plain[i][1] + 1
                    if terminated[i] or truncated[i]:
                        ended.append((i, *plain[i]))
                        plain[i] = 0.0, 0
                elif truncated[i] and plain[i][1]:
                    plain[i], lost = (0.0, 0), lost + 1
            assert [episode[1:4] for episode in single.episodes] == ended[len(ended) - len(single.episodes) :]
            assert all(episode.step == single.count for episode in single.episodes)
        assert [episode[1:4] for episode in whole.episodes] == ended
        assert all(episode.step == whole.count for episode in whole.episodes)
        assert whole.count == single.count and whole.finished == single.finished
        assert whole.returns.tolist() == single.returns.tolist() == [ret for ret, _ in plain]
        assert whole.lengths.tolist() == single.lengths.tolist() == [length for _, length in plain]
    assert whole.finished > 20 and whole.count < 180 and whole.lost == single.lost == lost > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_is_not_counted(value):
    ledger, flags = Ledger(2), np.zeros(2, bool)
    assert not ledger.add_step(np.array([0, value], np.float32), flags, flags, ~flags, flags.copy())
    assert ledger.count == ledger.finished == 0


def test_what_was_counted_elsewhere_and_when_a_run_is_done():
    ledger = Ledger(unit="updates")
    assert ledger.unit == "updates" and not ledger.done(1)
    ledger.advance(10, [Episode(4, 0, 1.0, 4), Episode(9, 0, 2.0, 5)])
    assert (ledger.count, ledger.finished, len(ledger.episodes)) == (10, 2, 2)
    assert ledger.done(10) and not ledger.done(11)
    ledger.most_episodes = 2
    assert ledger.done(11)


def test_a_state_goes_on():
    ledger, other = Ledger(3), Ledger(3)
    ledger.add(*played(7, 3))
    arrays, numbers = ledger.state()
    arrays = {name: x.clone() for name, x in arrays.items()}
    assert other.load_state(arrays, json.loads(json.dumps(numbers))) is True
    for one in (ledger, other):
        one.add(*played(9, 3, 1))
    assert ledger.episodes == other.episodes and ledger.count == other.count and ledger.finished == other.finished
    ledger.forget()
    assert not ledger.returns.any() and not ledger.lengths.any()
