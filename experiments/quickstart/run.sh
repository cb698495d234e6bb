#!/usr/bin/env bash
# The whole job on made-up data: target, drafts, evaluation. Needs the `padrec` command on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/quickstart results=runs/quickstart

if [ -e "$results" ]; then
  echo "$results is already there: look at $results/evaluate/report.md, or remove $results to run again" >&2
  exit 1
fi
padrec fit --config $configs/target.yaml
padrec fit --config $configs/draft.yaml --config $configs/base.yaml
padrec fit --config $configs/draft.yaml --config $configs/eagle.yaml
padrec fit --config $configs/draft.yaml --config $configs/hass.yaml
padrec fit --config $configs/draft.yaml --config $configs/padrec.yaml
padrec test --config $configs/evaluate.yaml

echo
cat $results/evaluate/report.md
echo
echo "Curves, figures and sample lists: .venv/bin/tensorboard --logdir $results"
