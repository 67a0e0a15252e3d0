"""W10: a whole process that trains PPO on CartPole-v1 for 1,024 steps: the command line as it is, evaluations and all, beside a script."""

from workloads.workload import Goal, Program, Workload

W10 = Workload(
    "a process that trains 1,024 steps",
    "s",
    {
        "whorl train": Program("whorl", "start_whorl.py", words=("1024",)),
        "Stable-Baselines3": Program("peers", "start_sb3.py", words=("1024",)),
    },
    [Goal("whorl train", "Stable-Baselines3", 1.0), Goal("whorl train", "Stable-Baselines3", 1.2, of="mib")],
)
