#!/bin/sh
# Runs both studies on scikit-learn's digits and draws the figures; a quarter of an hour on two quiet cores.
set -eu
cd "$(dirname "$0")"
isthmus stationary --walkers 128 --steps 2000 --output stationary.json
isthmus remedies --output remedies.json
python ../draw.py .
