#!/usr/bin/env bash
# The whole study on one GPU. Needs the `padrec` command on the PATH and the data, see data.yaml.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/beauty results=runs/beauty

if [ -e "$results" ]; then
  echo "$results is already there: remove it to run again" >&2
  exit 1
fi

padrec fit --config $configs/target.yaml
for how in greedy sampled; do
  padrec predict --config $configs/lists.yaml --config $configs/$how.yaml \
    --ckpt_path $results/target/checkpoints/best.ckpt
done
for draft in base eagle hass padrec; do
  padrec fit --config $configs/draft.yaml --config $configs/$draft.yaml
done

# Temperature 0 and 1, with and without the constraint.
evaluate() {
  local name=$1
  shift
  padrec test --config $configs/evaluate.yaml --trainer.logger.init_args.name "$name" "$@"
}
evaluate greedy
evaluate sampled --model.init_args.temperature 1
evaluate greedy-free --config $configs/free.yaml
evaluate sampled-free --config $configs/free.yaml --model.init_args.temperature 1
evaluate transformers --config $configs/transformers.yaml
