#!/usr/bin/env bash
# From a raw log to recommendations for users who are not in it, on a made-up sample. Needs the `padrec` command on the
# PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/own_catalog results=runs/own_catalog

if [ -e "$results" ]; then
  echo "$results is already there: remove it to run again" >&2
  exit 1
fi
python $configs/sample.py $results/raw
padrec prepare --config $configs/prepare.yaml
padrec predict --config $configs/semantic_ids.yaml
padrec fit --config $configs/target.yaml
padrec fit --config $configs/draft.yaml
padrec test --config $configs/evaluate.yaml
padrec predict --config $configs/evaluate.yaml --config $configs/recommend.yaml

echo
cat $results/recommendations.jsonl
