"""`make_env`, with transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whorl.envs import make
from whorl.envs.env import Env
from whorl.envs.make import EnvKind, Wrapper

if TYPE_CHECKING:
    from whorl.transforms.chain import Transforms


def make_env(
    id: str,
    num_envs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    prefer: str = "native",
    wrappers: Sequence[Wrapper] = (),
    transforms: Transforms | None = None,
    **options: Any,
) -> Env:
    """As `whorl.envs.make.make_env`, and with `transforms` around all N environments together.

    transforms: objects, which become part of it as they are, names, or names with arguments (docs/transforms.md), the innermost first.
    Without any, what is returned is the environment itself.
    Raises BadInput for an unknown transform, Incompatible for one that does not fit what lies within.
    """
    parts = None
    if transforms:
        from whorl.transforms.chain import chain  # brings torch, which environments do without

        parts = chain(transforms)
        if parts is not None and parts.draws:
            options.setdefault("render_mode", "rgb_array")
    env = make.make_env(id, num_envs, seed, device, prefer, wrappers, **options)
    if parts is None:
        return env
    try:
        through = parts.of_objects(env)
    except BaseException:
        env.close()
        raise
    assert isinstance(env.made_from, EnvKind)
    through.made_from = replace(env.made_from, transforms=parts)
    return through
