#!/usr/bin/env bash
# Adapters for a pretrained model of some hundred million weights, a few steps of each stage on a CPU: whether all fits
# together. PADREC_LANGUAGE_MODEL names the model, PADREC_OFFICE_TARGET the target below runs/office/.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PADREC_LANGUAGE_MODEL:?names the folder of a pretrained language model}"
export PADREC_OFFICE_TARGET=${PADREC_OFFICE_TARGET:-first-look}
configs=experiments/office
if [ -e "runs/office/$PADREC_OFFICE_TARGET" ]; then
  echo "runs/office/$PADREC_OFFICE_TARGET is already there: remove it to run again" >&2
  exit 1
fi
data=(
  --data.init_args.batch_size 2 --data.init_args.max_history 4
  --data.init_args.prompt.init_args.max_title_tokens 8 --data.init_args.list_length 5
)
steps=(--trainer.limit_val_batches 0 --trainer.limit_train_batches 30 --model.init_args.warmup_steps 5)

padrec fit --config $configs/target.yaml --config $configs/lora.yaml --config $configs/small.yaml \
  "${data[@]}" "${steps[@]}" --trainer.logger.init_args.name "$PADREC_OFFICE_TARGET"
padrec fit --config $configs/draft.yaml --config $configs/small.yaml "${data[@]}" "${steps[@]}"
padrec test --config $configs/evaluate.yaml --config $configs/small.yaml "${data[@]}" --data.init_args.max_users 5
