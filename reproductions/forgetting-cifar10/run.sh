#!/usr/bin/env bash
# The recorded run: needs one GPU and CIFAR-10 (here a subset of 18,000 + 3,000 images as one .npz: x, y, x_test, y_test).
set -euo pipefail
isthmus continual --model resnet20 --data "${1:-cifar10}" --replicas 6 --train epochs=12,precision=tensorfloat32 \
  --task epochs=8 --device cuda -o result.json
python ../draw.py .
