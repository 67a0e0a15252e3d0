"""A trained policy as a file that is used without whorl: ONNX, torch.export, or its tensors alone."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from whorl import files, folders
from whorl.batch import Numbers
from whorl.envs.adapters.spaces import own_columns
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.policies.policy import Policy
from whorl.spaces import leaves
from whorl.training.actor import within
from whorl.transforms.acting import Acting
from whorl.transforms.transform import Transform

Tensors: TypeAlias = "Tensor | dict[str, Tensors] | tuple[Tensors, ...]"  # nested as a space is
Format = Literal["onnx", "torch", "safetensors"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
ABOUT = "whorl.json"  # of the archive of torch.export: what stands as metadata in the other two


def export(policy: Policy, env: Env, path: Path, to: Format | None, about: Numbers) -> Path:
    """Writes `Greedy(policy, env)`, or for safetensors the policy's tensors, into `path` and returns it. See `Trained.export`."""
    if to is None:
        to = next((name for name, suffix in SUFFIXES.items() if suffix == path.suffix), None)
    if to not in SUFFIXES:
        known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
        raise BadInput(f"a policy is exported to {known}; got {path.name if to is None else to!r}")
    if not policy.greedy or policy.recurrent:
        why = "has a memory, which a plain module has not" if policy.recurrent else "has no greedy action"
        raise BadInput(f"{type(policy).__name__} {why}: it cannot be exported")
    if to != "safetensors" and (lost := whole(env).remembering):
        raise BadInput(
            f"{', '.join(lost)} remembers the episode, and a plain module has no memory: it cannot be exported with it. safetensors holds "
            "the policy alone, without transforms"
        )
    if to == "safetensors":
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
        data = save(
            tensors, {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
        )
    else:
        module = Greedy(copy.deepcopy(policy), env).eval().requires_grad_(False)
        data = (_onnx if to == "onnx" else _torch)(module, module.example(), about)
    folders.make(path.absolute().parent)
    files.write(path, data)
    return path


class Greedy(nn.Module):
    """A batch of observations -> the greedy actions, both in the environment's own form; the normalizer is inside.

    Keys of a Dict stand in the space's order, in which Gymnasium has sorted them: what torch exports reads them by place.
    """

    start: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policy: Policy, env: Env):
        super().__init__()
        self.policy, self.around = policy, nn.ModuleList(whole(env).transforms)
        self.observation_space, self.action_space = copy.deepcopy((env.own_observation_space, env.own_action_space))
        self.masked = _mask_inside(env)
        actions = _leaves(self.action_space)
        inside = within(env)[0].action_space
        parts, mixed = [_span(leaf) for leaf in actions], isinstance(inside, spaces.Tuple)
        self.columns = own_columns(actions).tolist() if mixed else None
        dtype = torch.float32 if mixed or isinstance(inside, spaces.Box) else torch.int64
        for name, values in zip(("start", "low", "high"), zip(*parts)):
            self.register_buffer(name, torch.as_tensor(np.concatenate(values)).to(dtype))

    def forward(self, observation: Tensors) -> Tensors:
        mask: Any = None
        if self.masked:
            assert isinstance(observation, dict) and isinstance(observation["action_mask"], Tensor)
            mask = observation["action_mask"].flatten(1).bool()
            observation = {key: value for key, value in observation.items() if key != "action_mask"}
        seen = _seen(self.observation_space, observation)
        if self.masked and len(seen) == 1:  # as the adapter does
            [seen] = seen.values()
        n = leaves(seen)[0].shape[0]
        first = torch.ones(n, dtype=torch.bool)
        for each in self.around:
            assert isinstance(each, Transform)
            seen, mask = each.reset(seen, first), each.allowed(mask)
        decided, _ = self.policy.act(seen, self.policy.initial(n), first, None, mask)
        action: Any = decided["action"]
        for each in reversed(self.around):
            assert isinstance(each, Transform)
            action = each.action(action)
        flat = action.reshape(n, -1)
        flat = flat if self.columns is None else flat[:, self.columns]
        flat = torch.maximum(torch.minimum(flat + self.start, self.high), self.low)
        return _taken(self.action_space, flat, 0)[0]

    def example(self) -> Tensors:
        """Two observations from the space, as tensors."""
        space = batch_space(self.observation_space, 2)
        space.seed(0)
        return _tensors(space.sample())


def whole(env: Env) -> Acting:
    """The transforms around it, for any one environment. Raises BadInput for what only an environment can do."""
    world, around = within(env)
    return Acting(around, world.observation_space, env.action_space, 1)


# --------------------------------------------------------------------------------- the environment's own form, in torch


def _mask_inside(env: Env) -> bool:
    """Whether the adapter takes the action mask out of the observation."""
    own, seen = env.own_observation_space, within(env)[0].observation_space
    inside = isinstance(own, spaces.Dict) and "action_mask" in own.spaces
    return inside and not (isinstance(seen, spaces.Dict) and "action_mask" in seen.spaces)


def _seen(space: spaces.Space, x: Any) -> Any:
    """As `envs.adapters.spaces.observations`."""
    if isinstance(space, spaces.Dict):
        return {key: _seen(space[key], inner) for key, inner in x.items()}
    if isinstance(space, spaces.Tuple):
        return {str(i): _seen(inner, x[i]) for i, inner in enumerate(space.spaces)}
    if isinstance(space, spaces.Discrete):
        return x - int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        columns = enumerate(space.start.ravel().tolist())
        return torch.stack([x.flatten(1)[:, i] - start for i, start in columns], -1)
    return x if space.dtype == np.uint8 or isinstance(space, spaces.MultiBinary) else x.float()


def _taken(space: spaces.Space, flat: Tensor, begin: int) -> tuple[Any, int]:
    """Columns of `flat` [N, W] from `begin` on as a batch of `space`, and the next column. As `Env.decode`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found: dict[Any, Any] = {}
        for key, inner in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
            found[key], begin = _taken(inner, flat, begin)
        return (found if isinstance(space, spaces.Dict) else tuple(found.values())), begin
    shape = space.shape or ()
    end = begin + math.prod(shape)
    x, dtype = flat[:, begin:end].reshape(-1, *shape), np.dtype(space.dtype or np.float32)
    return (x if dtype.kind == "f" else x.round() if x.is_floating_point() else x).to(_dtype(dtype)), end


def _leaves(space: spaces.Space) -> list[Any]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return [leaf for part in inner for leaf in _leaves(part)]
    return [space]


def _span(leaf: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(What is added, least, most) of each number of an action, flat."""
    ones = np.ones(leaf.shape, np.int64)
    if isinstance(leaf, spaces.Box):
        return 0 * leaf.low.ravel(), leaf.low.ravel(), leaf.high.ravel()
    start = ones * getattr(leaf, "start", 0)
    most = getattr(leaf, "nvec", getattr(leaf, "n", 2)) if not isinstance(leaf, spaces.MultiBinary) else 2
    return start.ravel(), start.ravel(), (start + most - 1).ravel()


def _tensors(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _tensors(inner) for key, inner in tree.items()}
    return tuple(map(_tensors, tree)) if isinstance(tree, tuple) else torch.as_tensor(tree)


def _dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.zeros(1, dtype)).dtype


# ---------------------------------------------------------------------------------------------------------- formats


def _program(module: Greedy, example: Any) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    shapes = torch.utils._pytree.tree_map(lambda _: {0: batch}, example)
    try:
        return torch.export.export(module, (example,), dynamic_shapes=(shapes,))
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        raise BadInput(f"{type(module.policy).__name__} cannot be exported: {type(error).__name__}: {why}") from error


def _torch(module: Greedy, example: Any, about: Numbers) -> bytes:
    program, data = _program(module, example), io.BytesIO()
    program.example_inputs = None  # it would be the only pickle in the archive
    torch.export.save(program, data, extra_files={ABOUT: json.dumps(about)})
    return data.getvalue()


def _onnx(module: Greedy, example: Any, about: Numbers) -> bytes:
    try:
        onnxruntime, _ = (importlib.import_module(name) for name in ("onnxruntime", "onnxscript"))
    except ModuleNotFoundError as error:
        raise BadInput(f'ONNX needs {error.name}, which is missing: pip install "whorl[onnx]"') from None
    inputs, outputs = _named("observation", example), _named("action", module(example))
    with _quiet():
        program = torch.onnx.export(
            _program(module, example), dynamo=True, verbose=False, input_names=[*inputs], output_names=[*outputs]
        )
    assert program is not None
    for name, value in about.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    got = session.run([*outputs], {name: tensor.numpy() for name, tensor in inputs.items()})
    for (name, wanted), found in zip(outputs.items(), got):
        if not np.allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4):
            raise BadInput(
                f"onnxruntime gives {found.tolist()} as {name}, torch {wanted.tolist()}: nothing was written"
            )
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of the changes to come in its exporter, and of torchvision, which nobody needs."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _named(name: str, tree: Any) -> dict[str, Tensor]:
    """The leaves of a tree, by dotted names, in order."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, tuple) else None
    if inner is None:
        return {name: tree}
    return {each: leaf for key, part in inner for each, leaf in _named(f"{name}.{key}", part).items()}
