#!/bin/sh
# REINFORCE with a normal policy on Pendulum-v1, with parameters that learn. Extra arguments are passed on, and win.
# torch-twrl's own were -stepsizeStart 0.3 -policyStd 0.1 -gamma 1 -nIterations 500: they do not learn, whatever is mended
# (docs/twrl.md). Add them to see it.
exec whorl run \
  -env 'Pendulum-v1' \
  -policy normal \
  -learningUpdate reinforce \
  -model mlp \
  -optimType rmsprop \
  -optimAlpha 0.9 \
  -timestepsPerBatch 1000 \
  -stepsizeStart 0.02 \
  -policyStd 0.5 \
  -gamma 0.95 \
  -nHiddenLayerSize 10 \
  -gradClip 5 \
  -baselineType padTimeDepAvReturn \
  -weightDecay 0 \
  -windowSize 100 \
  -nSteps 1000 \
  -nIterations 5000 \
  -video 0 \
  -uploadResults true \
  -renderAllSteps false \
  "$@"
