"""Trust region policy optimization. Schulman et al. 2015, https://arxiv.org/abs/1502.05477. Deviations: docs/algorithms/trpo.md"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl import dynamo
from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import distribution_of, kept, targets
from whorl.batch import Batch, Buffer, Metrics, Tree, get
from whorl.errors import BadInput, NotFinite
from whorl.feeds import Rollouts
from whorl.functional import masked_mean, standardise, value_loss
from whorl.functional.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    flat,
    line_search,
    trust_region_step,
)
from whorl.nets.encoder import EncoderFactory
from whorl.nets.heads import Critic
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.options import Amount, Count, Share
from whorl.policies.distributions import Distribution
from whorl.policies.mixed import stochastic_for
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class TRPOConfig:
    """Defaults: Schulman et al. 2015, with GAE and the critic of their later code (OpenAI Baselines, trpo_mpi)."""

    # delta: mean KL(old || new) of one policy step [nats]
    kl_limit: Annotated[float, Amount] = 0.01
    # added to the diagonal of the Fisher matrix
    damping: Annotated[float, Amount] = 0.1
    # Fisher-vector products for one direction
    conjugate_gradient_steps: Annotated[int, Count] = 10
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # lambda of GAE
    trace_decay: Annotated[float, Share] = 0.97
    # Adam's step size, of the critic
    learning_rate: Annotated[float, Amount] = 1e-3
    # over each rollout
    normalize_advantage: bool = True
    # by running mean and std, inside the policy
    normalize_observation: bool = False
    # the critic predicts (return - mean) / std, running
    normalize_return: bool = False
    # units of each hidden layer, actor and critic apart
    hidden: Annotated[tuple[int, ...], Count] = (64, 64)

    activation: Literal["tanh", "relu"] = "tanh"
    # of a Gaussian: a parameter, or a function of the observation
    std: Literal["independent", "dependent"] = "independent"
    # tanh onto the bounds of a Box
    squash: bool = False

    # epochs and minibatches are the critic's
    feed: Rollouts = Rollouts(steps=128, epochs=10, minibatches=8)


class TrustRegion(torch.optim.Optimizer):
    """The natural gradient of length sqrt(2 kl_limit) in the policy's own metric, cut back until it holds. The three equations:

    F x = g,   step = sqrt(2 kl_limit / x'Fx) x,   theta += shrink^j step with improvement > 0 and KL <= kl_limit

    g is minus the gradient that lies in the parameters (of a loss, minus the objective), F the Fisher matrix plus `damping` times
    the identity. `aim` says, before each step, what the objective and the KL are. Where no j will do, nothing moves.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], kl_limit: float, damping: float, conjugate_gradient_steps: int
    ):
        settings = {"kl_limit": kl_limit, "damping": damping, "conjugate_gradient_steps": conjugate_gradient_steps}
        super().__init__(list(parameters), settings)
        self.report: Metrics = {}

    def aim(self, objective: Callable[[], Tensor], kl: Callable[[], Tensor]) -> None:
        """Scalars of the parameters as they are when called: what to raise, and mean KL(old || theta)."""
        self._objective, self._kl = objective, kl

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Raises NotFinite, with the weights as they were, when the Fisher matrix gives no finite direction."""
        (group,) = self.param_groups
        theta, limit = group["params"], group["kl_limit"]
        with torch.no_grad():
            before = self._objective()
        gradient = flat(torch.zeros_like(p) if p.grad is None else -p.grad for p in theta)
        fisher = fisher_vector_product(self._kl(), theta)
        damped = lambda v: fisher(v) + group["damping"] * v  # noqa: E731

        direction = conjugate_gradient(damped, gradient, group["conjugate_gradient_steps"])
        full = trust_region_step(damped, direction, limit)
        if not full.isfinite().all():
            raise NotFinite(
                "the natural gradient became NaN or infinite; the weights are those before it. Raise damping"
            )

        old = flat(theta).detach().clone()

        @torch.no_grad()
        def move(step: Tensor) -> tuple[Tensor, Tensor]:
            """(improvement, KL) at old + step, where the weights are from now on."""
            pieces = (old + step).split([p.numel() for p in theta])
            for p, piece in zip(theta, pieces, strict=True):
                p.copy_(piece.view_as(p))
            return self._objective() - before, self._kl()

        accepted, shrinks = line_search(move, full, limit)
        improvement, kl = move(accepted)
        self.report = {
            "kl": kl,
            "surrogate_improvement": improvement,
            "line_search_shrinks": torch.tensor(float(shrinks), dtype=torch.float32),
        }


class TRPO(Agent[TRPOConfig]):
    """One natural-gradient step of the policy on each whole rollout, then epochs of minibatches for the critic."""

    Config = TRPOConfig
    uncompiled = "TRPO cannot be compiled: how far its line search goes depends on the data"
    policy: Stochastic
    optimizer: TrustRegion

    def __init__(self, policy: Stochastic, critic: nn.Module, config: TRPOConfig = TRPOConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.return_normalizer = Normalizer() if config.normalize_return else NoNormalizer()
        limits = config.kl_limit, config.damping, config.conjugate_gradient_steps
        self.optimizer = dynamo.make(TrustRegion, policy.parameters(), *limits)
        self.critic_optimizer = adam(critic.parameters(), config.learning_rate)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: TRPOConfig, *, encoder: EncoderFactory | None = None
    ) -> TRPO:  # fmt: skip
        c = config
        if not c.kl_limit:
            raise BadInput("kl_limit must be above 0: with no KL allowed the policy cannot move")
        policy = stochastic_for(action_space).build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.normalize_observation, std=c.std, squash=c.squash, encoder=encoder,
        )  # fmt: skip
        return cls(policy, Critic(observation_space, c.hidden, c.activation, encoder=encoder), c)

    def value(self, observation: Tree) -> Tensor:
        """V(observation), in the units of the normalized return."""
        return self.critic(self.policy.normalizer(observation))

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        advantage, target, _ = targets(self, rollout, c.discount, c.trace_decay)
        if c.normalize_advantage:
            advantage = standardise(advantage, get(rollout, "mask"))
        return kept(rollout, advantage=advantage, target=target)

    def distribution(self, batch: Batch) -> Distribution:
        """What the policy does in the batch's states."""
        return distribution_of(self.policy, batch)

    def surrogate(self, batch: Batch) -> Tensor:  # [B]
        """mean A pi(a|s) / pi_old(a|s). Schulman et al. 2015, eq. 14, with the sampled actions' probabilities in the denominator."""
        log_ratio = self.distribution(batch).log_prob(batch["action"]) - batch["log_prob"]
        return masked_mean(log_ratio.exp() * batch["advantage"], get(batch, "mask"))

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        loss = -self.surrogate(batch)
        return loss, {"policy_gradient_loss": loss}

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        error = value_loss(self.value(batch["observation"]), self.return_normalizer(batch["return"]))
        loss = masked_mean(error, get(batch, "mask"))
        return loss, {"value_loss": loss}

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Both: they share no parameter, so each optimizer minimises its own part."""
        policy_loss, metrics = self.policy_loss(batch)
        critic_loss, more = self.critic_loss(batch)
        return policy_loss + critic_loss, metrics | more

    def improve(self, rows: Batch) -> Metrics:
        """One step of the policy, on all rows of a rollout at once."""
        with torch.no_grad():
            now: Any = self.distribution(rows)
            # copies: an independent log std is a view of its parameter, which is about to move
            old = replace(now, **{key: x.clone() for key, x in vars(now).items() if isinstance(x, Tensor)})
            entropy = masked_mean(old.entropy(), get(rows, "mask"))
        self.optimizer.aim(
            objective=lambda: self.surrogate(rows),
            kl=lambda: masked_mean(old.kl(self.distribution(rows)), get(rows, "mask")),
        )
        self.optimizer.report = {}
        metrics = self.optimize(self.policy_loss, self.optimizer, rows)
        return {
            "policy_gradient_loss": metrics["policy_gradient_loss"],
            "grad_norm": metrics["policy_grad_norm"],
            "entropy_loss": -entropy,
            **self.optimizer.report,
        }

    def update(self, batch: Batch) -> Metrics:
        """One step of the critic."""
        return {"value_loss": self.optimize(self.critic_loss, self.critic_optimizer, batch)["value_loss"]}

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        rows: Any = torch.cat(list(buffer.batches(self.config.feed.minibatches)))  # one epoch: the whole rollout
        metrics = self.improve(rows)
        return metrics | super().learn(buffer, count)
