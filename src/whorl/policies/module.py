"""A module of tensordict's, or any that takes and gives a TensorDict, as a policy."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl import batch
from whorl.batch import Batch, Tree
from whorl.errors import BadInput, in_words
from whorl.nets.normalizer import NoNormalizer
from whorl.policies.policy import Carry, Decided, Drawn, Policy
from whorl.spaces import action_sizes, describe, zeros

LOG_PROB = ("log_prob", "action_log_prob", "sample_log_prob")  # whorl's name, tensordict's, and what that was once


class ModulePolicy(Policy):
    """`module(TensorDict [N]) -> TensorDict [N]` as a policy: it reads `observation` (nested for a Dict), `is_first` and, for discrete
    actions, `action_mask`, as it wants; it writes `action`, and may write `log_prob` (or `action_log_prob`). Nothing else of what it
    writes is recorded.

    It draws from torch's own stream, which is given a seed at each step and put back after it, so the same noise gives the same action;
    greedy is `InteractionType.DETERMINISTIC`. That makes it slower than a policy of whorl's. It has no memory of its episodes.
    Lazy layers get their sizes here. Raises BadInput for a module that does not do the above: it is tried on zeros.
    """

    def __init__(self, module: nn.Module, observation_space: spaces.Space, action_space: spaces.Space):
        super().__init__()
        self.module, self.normalizer = module, NoNormalizer()
        self.choices = sum(action_sizes(action_space) or ())
        name = type(module).__name__
        self.notices = [f"{name} acts through a TensorDict, which is slower than a policy of whorl's"]
        for rows in (2, 1):
            known = self._known(zeros(observation_space, (rows,)), torch.ones(rows, dtype=torch.bool), None)
            given, action = (
                self._tried(known, f"{name}, tried on {describe(observation_space)},"),
                zeros(action_space, (rows,)),
            )
            self._log_prob = next((key for key in LOG_PROB if batch.get(given, key) is not None), None)
            wanted = {"action": action} | ({self._log_prob: torch.zeros(rows)} if self._log_prob else {})
            for key, like in wanted.items():
                came = batch.get(given, key)
                if came is None:
                    raise BadInput(
                        f"a module that acts writes 'action' for {describe(action_space)}; {name} gives {', '.join(batch.names(given))}"
                    )
                if came.shape != like.shape or came.dtype != like.dtype:
                    raise BadInput(
                        f"{name} must write {key!r} as {_kind(like)} for {rows} rows of {describe(action_space)}, it writes {_kind(came)}"
                    )

    def _known(self, observation: Tree, is_first: Tensor, action_mask: Tensor | None) -> Batch:
        known: dict[str, Tree] = {"observation": observation, "is_first": is_first}
        if self.choices:
            every = torch.ones(*is_first.shape, self.choices, dtype=torch.bool, device=is_first.device)
            known["action_mask"] = every if action_mask is None else action_mask
        return batch.make(known, is_first.shape)

    def _tried(self, known: Batch, words: str) -> Batch:
        try:
            with torch.no_grad(), batch.interaction(drawn=False):
                given = self.module(known)
        except Exception as error:
            what = ", ".join(batch.names(known))
            raise BadInput(f"{words} raises {in_words(error)}; it is given a TensorDict with {what}") from error
        if not isinstance(given, Batch):
            raise BadInput(f"{words} must give a TensorDict, it gives a {type(given).__name__}")
        return given

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Seeds [T, N], of which the first of each step is used."""
        return torch.randint(2**62, shape, device=generator.device, generator=generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        known = self._known(observation, is_first, action_mask)
        with torch.random.fork_rng([is_first.device] if is_first.is_cuda else []), batch.interaction(noise is not None):
            seed = 0 if noise is None else int(noise[0])
            torch.default_generator.manual_seed(seed)
            if is_first.is_cuda:
                torch.cuda.manual_seed(seed)
            given = self.module(known)
        decided = {"action": given["action"]}
        return decided | ({"log_prob": given[self._log_prob]} if self._log_prob else {}), carry


def _kind(x: Tensor) -> str:
    """int64 [2]"""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
