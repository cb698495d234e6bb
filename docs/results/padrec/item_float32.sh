#!/usr/bin/env bash
# The models of item-float32: a target of 4 layers x 128 after 60 steps, and drafts of 40. From the repository's root; the
# report has the command that compares them.
set -euo pipefail
results=runs/smoke
fit() { padrec fit --trainer.logger.init_args.save_dir $results --trainer.max_epochs 1 "$@"; }

fit --config experiments/beauty/target.yaml --config experiments/beauty/tiny.yaml --trainer.check_val_every_n_epoch 1 \
  --trainer.limit_train_batches 60 --data.init_args.max_users 16
for temperature in 0 1; do
  padrec predict --config experiments/beauty/lists.yaml --config experiments/beauty/tiny.yaml \
    --trainer.logger.init_args.save_dir $results --ckpt_path $results/target/checkpoints/best.ckpt \
    --model.init_args.temperature $temperature --data.init_args.max_users 128 \
    --trainer.callbacks "[{class_path: padrec.RecommendationWriter, init_args: {path: $results/lists/$temperature.jsonl}}]"
done
for draft in item log_acceptance; do
  fit --config experiments/beauty/draft.yaml --config experiments/base_drafts/$draft.yaml \
    --trainer.logger.init_args.name $draft --trainer.limit_train_batches 40 --trainer.limit_val_batches 0 \
    --model.init_args.target $results/target/checkpoints/best.ckpt --model.init_args.position_aware null \
    --model.init_args.initial_weights null --model.init_args.compile false --model.init_args.warmup_steps 5 \
    --data.init_args.batch_size 16 --data.init_args.training_rows \
    "[{class_path: padrec.GeneratedLists, init_args: {paths: [$results/lists/0.jsonl, $results/lists/1.jsonl]}}]"
done
