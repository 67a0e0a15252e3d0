#!/bin/sh
# The random agent on CartPole-v0, ten episodes, torch-twrl's parameters. Extra arguments are passed on, and win.
exec whorl run \
  -env 'CartPole-v0' \
  -policy random \
  -learningUpdate noLearning \
  -model noModel \
  -video 0 \
  -renderAllSteps false \
  -nIterations 10 \
  "$@"
