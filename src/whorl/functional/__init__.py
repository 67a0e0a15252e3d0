"""The maths of reinforcement learning: tensors in, tensors out. numba is imported by the first kernel that needs it."""

from whorl.functional.advantages import gae, leave_one_out, standardise, vtrace
from whorl.functional.baselines import (
    episode_rows,
    leave_one_out_baseline,
    optimal_baseline,
    squared_scores,
    time_baseline,
)
from whorl.functional.bellman import huber, td_target, weighted_mean
from whorl.functional.divergences import (
    categorical_entropy,
    categorical_kl,
    gaussian_entropy,
    gaussian_kl,
    kl_k1,
    kl_k2,
    kl_k3,
)
from whorl.functional.kernels import recurrence
from whorl.functional.policy_gradient import clipped_surrogate, clipped_value_loss, score_function, value_loss
from whorl.functional.returns import discounted_return, lambda_return, n_step_return, reward_to_go
from whorl.functional.shapes import same_shape
from whorl.functional.statistics import (
    batch_moments,
    bootstrap_interval,
    explained_variance,
    iqm,
    masked_mean,
    merge_moments,
)
from whorl.functional.streams import stream

__all__ = [
    "batch_moments",
    "bootstrap_interval",
    "categorical_entropy",
    "categorical_kl",
    "clipped_surrogate",
    "clipped_value_loss",
    "discounted_return",
    "episode_rows",
    "explained_variance",
    "gae",
    "gaussian_entropy",
    "gaussian_kl",
    "huber",
    "iqm",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "lambda_return",
    "leave_one_out",
    "leave_one_out_baseline",
    "masked_mean",
    "merge_moments",
    "n_step_return",
    "optimal_baseline",
    "recurrence",
    "reward_to_go",
    "same_shape",
    "score_function",
    "squared_scores",
    "standardise",
    "stream",
    "td_target",
    "time_baseline",
    "value_loss",
    "vtrace",
    "weighted_mean",
]
