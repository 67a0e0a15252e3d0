"""TorchRL's PPO from its own parts, with the common parameters: SerialEnv of 8 GymEnv, Collector, GAE, ClipPPOLoss."""

from collections import deque

import numpy as np
import torch
from report import Timed, serve
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import GymEnv, RewardSum, SerialEnv, StepCounter, TransformedEnv
from torchrl.modules import MLP, OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


def run(seconds=1.0, seed=0):
    torch.manual_seed(seed)
    env = TransformedEnv(SerialEnv(8, lambda: GymEnv("CartPole-v1")), RewardSum())
    env.append_transform(StepCounter())
    env.set_seed(seed)
    mlp = lambda outputs: MLP(in_features=4, out_features=outputs, num_cells=[64, 64], activation_class=nn.Tanh)  # noqa: E731
    actor_net, critic_net = mlp(2), mlp(1)
    for net, gain in ((actor_net, 0.01), (critic_net, 1.0)):
        layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
    actor = ProbabilisticActor(
        TensorDictModule(actor_net, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"], spec=env.action_spec, distribution_class=OneHotCategorical, return_log_prob=True,
    )  # fmt: skip
    critic = ValueOperator(critic_net, in_keys=["observation"])
    frames = 8 * 128
    collector = Collector(env, actor, frames_per_batch=frames, total_frames=-1)
    gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic, average_gae=False)
    loss_module = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=0.2,
        loss_critic_type="l2",
        entropy_coeff=0.01,
        critic_coeff=0.25,
        normalize_advantage=True,
    )  # l2 without the 1/2: 0.25 is the peers' 0.5
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3, eps=1e-5)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(frames), sampler=SamplerWithoutReplacement(), batch_size=frames // 4
    )
    steps, recent, timer = 0, deque(maxlen=50), Timed(2_048, seconds)
    for data in collector:
        done = data["next", "done"]
        recent.extend(data["next", "episode_reward"][done].tolist())
        for _ in range(4):
            with torch.no_grad():
                data = gae(data)
            buffer.extend(data.reshape(-1))
            for batch in buffer:
                losses = loss_module(batch)
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
        collector.update_policy_weights_()
        steps += frames
        if timer(steps):
            break
    collector.shutdown()
    return timer.outcome(np.mean(recent) if recent else None)


if __name__ == "__main__":
    serve(run)
