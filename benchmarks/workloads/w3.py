"""W3: DQN on CartPole-v1, 120x84, Adam 2.5e-4, 10,000 rows, the target copied every 500 steps."""

from workloads.workload import Goal, Program, Workload, sb3, whorl

W3_32 = Workload(
    "DQN, CartPole-v1, 32 rows every step",
    "steps/s",
    {**whorl("dqn_32", "auto", "eager"), **sb3("dqn", every=1, batch=32)},
    [Goal("whorl auto", "whorl eager", 2.5), Goal("whorl auto", "Stable-Baselines3", 4.0)],
)
W3_128 = Workload(
    "DQN, CartPole-v1, 128 rows every 10 steps",
    "steps/s",
    {
        **whorl("dqn_128", "auto", "eager"),
        **sb3("dqn", every=10, batch=128),
        "TorchRL": Program("peers", "dqn_torchrl.py", {"every": 10, "batch": 128}),
    },
    [Goal("whorl auto", "Stable-Baselines3", 4.0)],
)
