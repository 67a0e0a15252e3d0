#!/bin/sh
# torch-twrl's sweep over step sizes, 10 seeds each, as many runs at a time as there are cores; the same command goes on after a kill.
# The settings are cartpole-pg's with 600 episodes (of at most 200 steps).
# Extra arguments are passed on, and win: examples/sweep.sh --seeds 3 --slots 1
exec whorl sweep reinforce CartPole-v0 \
  --seeds 10 \
  --num-envs 1 \
  --total-steps 120000 \
  --grid learning_rate=0.2,0.15,0.1,0.075,0.05,0.025,0.01 \
  --grid total_episodes=600 \
  --grid anneal_episodes=600 \
  --grid discount=1 \
  --grid baseline=padded_time \
  --grid entropy_weight=0.01 \
  --grid reduction=sum \
  --grid max_grad_norm=0 \
  --grid clip_value=5 \
  --grid hidden=10 \
  --grid initialization=uniform \
  --grid optimizer=rmsprop \
  --grid smoothing=0.9 \
  --grid optimizer_eps=1e-8 \
  --grid feed.steps=1000 \
  "$@"
