#!/bin/sh
# REINFORCE on CartPole-v0: torch-twrl's flagship, every parameter as in its README. Extra arguments are passed on, and win:
#     examples/cartpole-pg.sh -stepsizeStart 0.05 -seed 1
# The step size .3 solves it on few seeds, .05 on nearly all: docs/twrl.md
exec whorl run \
  -env 'CartPole-v0' \
  -policy categorical \
  -learningUpdate reinforce \
  -model mlp \
  -optimAlpha 0.9 \
  -timestepsPerBatch 1000 \
  -stepsizeStart 0.3 \
  -gamma 1 \
  -nHiddenLayerSize 10 \
  -gradClip 5 \
  -baselineType padTimeDepAvReturn \
  -beta 0.01 \
  -weightDecay 0 \
  -windowSize 10 \
  -nSteps 1000 \
  -nIterations 1000 \
  -video 100 \
  -optimType rmsprop \
  -verboseUpdate true \
  -uploadResults false \
  -renderAllSteps false \
  "$@"
