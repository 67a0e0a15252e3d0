"""train 2N = train, SIGKILL, `whorl resume`: equal SHA-256, for each agent, at random moments."""

import pytest

from tests.faults.kills import Warm, check_same_bits

OPTIONS = {
    "ppo": {"feed": {"steps": 64}, "normalize_observation": True, "normalize_return": True, "total_steps": 6_000},
    "a2c": {"anneal_steps": 6_000, "total_steps": 6_000},
    "reinforce": {"feed": {"steps": 40}, "total_steps": 8_000},
    "random": {"feed": {"steps": 32}, "total_steps": 30_000},
    "dqn": {  # the ring wraps, rows are drawn by priority
        "feed": {
            "batch_size": 16,
            "capacity": 1200,
            "replay_ratio": 0.1,
            "warmup": 200,
            "n_step": 3,
            "prioritized": True,
        },
        "total_steps": 6_000,
    },
    "sac": {
        "env": "Pendulum-v1",
        "hidden": (16,),
        "sde": True,  # exploration matrices are a carry
        "sde_every": 9,
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "warmup": 400},
        "total_steps": 4_000,
    },
    "ddpg": {
        "env": "Pendulum-v1",
        "hidden": (16,),
        "noise": "ou",
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "storage": "memmap"},
        "total_steps": 4_000,
    },
    "td3": {  # packed steps of three networks, one of them late; transforms with memory, and two that learn
        "env": "Pendulum-v1",
        "transforms": [
            "scale_action",
            "running_normalize",
            {"name": "stack_frames", "count": 2},
            {"name": "time_limit", "steps": 70},
            "normalize_reward",
        ],
        "hidden": (16,),
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "warmup": 400},
        "total_steps": 3_000,
    },
}


@pytest.fixture(scope="module")
def warm():
    with Warm() as warm:
        yield warm


@pytest.mark.fault
@pytest.mark.parametrize("agent", OPTIONS)
def test_killed_at_a_random_moment(agent, warm, tmp_path):
    common = {"env": "CartPole-v1", "num_envs": 4, "eval_every": 2000, "eval_episodes": 4, "quiet": True}
    common |= {"agent": agent, "checkpoint_every": 700, "log_every": 300}
    check_same_bits(warm, tmp_path, common | OPTIONS[agent])
