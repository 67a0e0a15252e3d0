"""W6: collection alone with a 64x64 policy, beside a bare loop over Gymnasium's vector environment."""

from workloads.workload import Program, Workload


def collection(num_envs):
    asked = {"whorl": "whorl", "bare Gymnasium loop": "bare"}
    programs = {name: Program("whorl", "collect.py", {"who": who, "num_envs": num_envs}) for name, who in asked.items()}
    return Workload(f"collection, CartPole-v1, {num_envs} environments", "steps/s", programs)


W6_8, W6_64 = collection(8), collection(64)
