#!/bin/sh
# SARSA(lambda) with hashed tile coding on MountainCar-v0, the parameters of torch-twrl's own tests. Extra arguments are passed
# on, and win. MountainCar-v0 ends its episodes after 200 steps, nSteps or not.
# Q(lambda) had: -tdLearnUpdate qLearning -lambda 0.9 -epsilon 0.1 -epsilonDecayRate 0.999 -numTilings 4
exec whorl run \
  -env 'MountainCar-v0' \
  -policy egreedy \
  -learningUpdate tdLambda \
  -model qFunction \
  -learningType noBatch \
  -tdLearnUpdate SARSA \
  -gamma 1 \
  -lambda 0.99 \
  -epsilon 0 \
  -epsilonDecayRate 1 \
  -relativeAlpha 0.05 \
  -numTiles 32 \
  -numTilings 5 \
  -nSteps 500 \
  -nIterations 1000 \
  -video 0 \
  "$@"
