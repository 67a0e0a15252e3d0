"""TorchRL's DQN, put together as in its own CartPole example: GymEnv, Collector, a buffer with prefetch 10, DQNLoss, HardUpdate.

The example collects 1,000 frames, then does 100 updates: the same one update every 10 steps, but in blocks, which costs it less than
taking turns.
"""

from collections import deque

import numpy as np
import torch
from report import DQN as SETTINGS
from report import Timed, serve
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv, RewardSum, StepCounter, TransformedEnv
from torchrl.modules import MLP, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

FRAMES = 1_000


def run(every=10, batch=128, seconds=1.0, seed=0):
    torch.manual_seed(seed)
    env = TransformedEnv(GymEnv("CartPole-v1"))
    env.append_transform(RewardSum())
    env.append_transform(StepCounter())
    env.set_seed(seed)
    net = MLP(in_features=4, out_features=2, num_cells=[120, 84], activation_class=torch.nn.ReLU)
    model = QValueActor(net, spec=Composite(action=env.action_spec), in_keys=["observation"])
    greedy = EGreedyModule(
        annealing_num_steps=1, eps_init=SETTINGS["epsilon"], eps_end=SETTINGS["epsilon"], spec=model.spec
    )
    collector = Collector(
        env, TensorDictSequential(model, greedy), frames_per_batch=FRAMES,
        total_frames=-1, init_random_frames=SETTINGS["warmup"],
    )  # fmt: skip
    buffer = TensorDictReplayBuffer(
        prefetch=10, storage=LazyTensorStorage(max_size=SETTINGS["capacity"]), batch_size=batch
    )
    loss_module = DQNLoss(value_network=model, loss_function="l2", delay_value=True)
    loss_module.make_value_estimator(gamma=0.99)
    target = HardUpdate(loss_module, value_network_update_interval=SETTINGS["target_every"] // every)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=SETTINGS["learning_rate"])
    updates = FRAMES // every
    losses = torch.zeros(updates)
    steps, recent, timer = 0, deque(maxlen=50), Timed(2_000, seconds)
    for data in collector:
        data = data.reshape(-1)
        buffer.extend(data)
        steps += data.numel()
        greedy.step(data.numel())
        recent.extend(data["next", "episode_reward"][data["next", "done"]].tolist())
        if steps > SETTINGS["warmup"]:
            for i in range(updates):
                loss = loss_module(buffer.sample())["loss"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                target.step()
                losses[i].copy_(loss.detach())
            collector.update_policy_weights_()
        if timer(steps):
            break
    collector.shutdown()
    return timer.outcome(np.mean(recent) if recent else None)


if __name__ == "__main__":
    serve(run)
