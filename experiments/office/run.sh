#!/usr/bin/env bash
# A pretrained language model as the target for Office Products, on a GPU: the target and its lists. Drafts and evaluation
# are DATA=office ../base_drafts/run.sh. PADREC_LANGUAGE_MODEL names the model, or it is taken from the hub. What is
# finished is not done again; arguments go to the target's fit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
config=experiments/office/target.yaml runs=runs/office target=runs/office/target/checkpoints/last.ckpt

write() { # how, temperature
  [ -e $runs/lists/"$1".jsonl ] || padrec predict --config $config --ckpt_path $target --model.init_args.temperature "$2" \
    --data.init_args.predict_split train --data.init_args.max_users null --data.init_args.eval_batch_size 128 \
    --trainer.logger.init_args.name "lists-$1" \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $runs/lists/$1.jsonl}}]"
}

[ -e $target ] || padrec fit --config $config "$@"
write greedy 0 &
greedy=$!
write sampled 1
wait $greedy
