#!/bin/sh
# SARSA(lambda) with hashed tile coding on CartPole-v0, torch-twrl's parameters. Extra arguments are passed on, and win.
exec whorl run \
  -env 'CartPole-v0' \
  -policy egreedy \
  -learningUpdate tdLambda \
  -model qFunction \
  -learningType noBatch \
  -epsilon 0.2 \
  -epsilonDecayRate 0.9999 \
  -initialWeightVal 0 \
  -tdLearnUpdate SARSA \
  -relativeAlpha 0.05 \
  "$@"
