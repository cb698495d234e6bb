#!/usr/bin/env bash
# All stages with a small language model of the items' own texts, on a CPU. Needs the `padrec` command and the data.
set -euo pipefail
cd "$(dirname "$0")/../.."
configs=experiments/office results=runs/office
export PADREC_LANGUAGE_MODEL=$results/language-model

if [ -e "$results" ]; then
  echo "$results is already there: remove it to run again" >&2
  exit 1
fi
python $configs/language_model.py "${PADREC_DATA:-../shared/data}/office" $PADREC_LANGUAGE_MODEL
for target in target lora; do
  overlay=()
  if [ $target = lora ]; then overlay=(--config $configs/lora.yaml); fi
  padrec fit --config $configs/target.yaml "${overlay[@]}" --config $configs/small.yaml \
    --model.init_args.learning_rate 2.0e-3 --model.init_args.warmup_steps 5
  export PADREC_OFFICE_TARGET=$target
  padrec fit --config $configs/draft.yaml --config $configs/small.yaml
  padrec test --config $configs/evaluate.yaml --config $configs/small.yaml
done
