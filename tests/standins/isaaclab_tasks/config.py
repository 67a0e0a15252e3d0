from types import SimpleNamespace


def parse_env_cfg(task_name, device="cuda:0", num_envs=None, use_fabric=None):
    """The task's config, with these in it."""
    assert task_name == "Isaac-Cartpole-v0"
    return SimpleNamespace(
        seed=None,
        episode_length_s=1.0,
        decimation=2,
        sim=SimpleNamespace(dt=0.02, device=device),
        scene=SimpleNamespace(num_envs=num_envs),
    )
