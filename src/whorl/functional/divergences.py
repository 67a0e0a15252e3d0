"""Entropies and Kullback-Leibler divergences, in nats.

The estimators take log_ratio = log p(x) - log q(x) at samples x ~ q and estimate KL(q || p) per sample, to be averaged.
With x acted by the old policy q and p the new one (log_ratio = log_prob - old_log_prob) that is KL(old || new).
J. Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whorl.functional.shapes import same_shape


def kl_k1(log_ratio: Tensor) -> Tensor:
    """-log_ratio: unbiased, large variance, can be negative."""
    return -log_ratio


def kl_k2(log_ratio: Tensor) -> Tensor:
    """log_ratio^2 / 2: biased by third-order terms, small variance, never negative."""
    return 0.5 * log_ratio.square()


def kl_k3(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio) - 1 - log_ratio: unbiased, small variance, never negative but for rounding."""
    return log_ratio.expm1() - log_ratio


def categorical_entropy(logits: Tensor) -> Tensor:
    """-sum_i p_i log p_i over the last axis, p = softmax(logits): [..., K] -> [...].

    Choices of probability 0 (masked by -inf or a very negative logit) add nothing and get gradient 0.
    """
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    return -(p * torch.where(p == 0, 0.0, log_p)).sum(-1)


def categorical_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p || q) = sum_i p_i (log p_i - log q_i) over the last axis: two [..., K] -> [...].

    Choices with p_i = 0 add nothing and get gradient 0; p_i > 0 where q_i = 0 is infinite, as it should be.
    Raises BatchError for unequal shapes.
    """
    same_shape(logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    p = log_p.exp()
    return (p * torch.where(p == 0, 0.0, log_p - log_q)).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """sum_i (log_std_i + log(2 pi e) / 2) of a diagonal normal distribution: [..., D] -> [...]."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal normal distributions, summed over the last axis: four [..., D] -> [...].

    sum_i log(sq / sp) + (sp^2 + (mp - mq)^2) / (2 sq^2) - 1/2. Raises BatchError for unequal shapes.
    """
    same_shape(mean_p=mean_p, log_std_p=log_std_p, mean_q=mean_q, log_std_q=log_std_q)
    log_ratio = log_std_p - log_std_q
    z = (mean_p - mean_q) * (-log_std_q).exp()
    return (0.5 * ((2 * log_ratio).expm1() + z.square()) - log_ratio).sum(-1)
