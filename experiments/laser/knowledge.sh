#!/usr/bin/env bash
# Knowledge about Office Products, from texts to clicks. Stages, each of which continues where it was interrupted:
#
#   first      exact texts about the first half of items and users, and pools of them
#   warm       short runs, after which evaluate, evaluate_32, float32 and sizes find what they compile in the compiler's cache
#   evaluate   arms side by side on the second halves, one prompt at a time; evaluate_32: 32 prompts at a time; float32: whether
#              exact texts are identical without the rounding of bfloat16
#   sizes      how large pools, contexts and trees should be, for items; transformers: beside transformers' own generation
#   second     exact texts about the second halves, and pools of them
#   old        arms that draw on users' texts as they were before the last item, without and with their own
#   relaxed    texts by the relaxed and the bounded rule, from pools of the other half
#   clicks     what the texts are worth to a click model, those about items alone or with those about users
#
#   bash experiments/laser/knowledge.sh first evaluate evaluate_32 float32 sizes transformers second old relaxed clicks
#
# PADREC_LANGUAGE_MODEL names the model's folder, PADREC_KNOWLEDGE_RUNS that of the results; PADREC_KNOWLEDGE_OPTIONS holds
# more options of `padrec predict` and `padrec test`, such as --trainer.accelerator=cpu --trainer.precision=32-true, and
# PADREC_KNOWLEDGE_CLICKS of the click model, such as --seeds 1 --epochs 1.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PADREC_LANGUAGE_MODEL=${PADREC_LANGUAGE_MODEL:-runs/laser/language-model}
export PADREC_KNOWLEDGE_RUNS=${PADREC_KNOWLEDGE_RUNS:-runs/laser/knowledge}
configs=experiments/laser results=$PADREC_KNOWLEDGE_RUNS office=${PADREC_DATA:-../shared/data}/office
read -ra options <<< "${PADREC_KNOWLEDGE_OPTIONS:-}"
kinds=${PADREC_KNOWLEDGE_KINDS:-items users} groups=${PADREC_KNOWLEDGE_GROUPS:-8} prompts=${PADREC_KNOWLEDGE_PROMPTS:-200}

# texts KIND FILE HALF OPTION…: write the texts of a half to a file, unless it is there.
texts() {
  local kind=$1 file=$2 half=$3
  shift 3
  if [ -e "$file" ]; then return; fi
  PADREC_KNOWLEDGE_TEXTS=$file padrec predict --config $configs/knowledge.yaml --data "$configs/knowledge_${kind}_data.yaml" \
    --config $configs/knowledge_write.yaml --data.init_args.half "$half" \
    --trainer.logger.init_args.name "write/$kind/$(basename "$file" .jsonl)" "${options[@]}" "$@"
}

# pool KIND FILE HALF TEXTS OPTION…: make a pool for the prompts of a half from a file of texts, unless it is there.
pool() {
  local kind=$1 file=$2 half=$3 from=$4
  shift 4
  if [ -e "$file" ]; then return; fi
  padrec text-pool --data "$configs/knowledge_${kind}_data.yaml" --data.init_args.half "$half" \
    --embeddings "$configs/knowledge_${kind}_groups.yaml" --texts "[$from]" --path "$file" "$@"
}

# compare KIND CONFIG NAME OPTION…: arms side by side on the second half, unless the report is there.
compare() {
  local kind=$1 config=$2 name=$3
  shift 3
  if [ -e "$results/$kind-$name/report.json" ]; then return; fi
  PADREC_KNOWLEDGE_POOLS=$results/$kind padrec test --config $configs/knowledge.yaml --data "$configs/knowledge_${kind}_data.yaml" \
    --config "$configs/knowledge_$config.yaml" --trainer.logger.init_args.name "$kind-$name" "${options[@]}" "$@"
}

wait_for_all() {
  local job
  for job in $(jobs -p); do wait "$job"; done
}

first() {
  for kind in $kinds; do
    local folder=$results/$kind
    texts "$kind" "$folder/exact-first.jsonl" first
    pool "$kind" "$folder/global.pool" second "$folder/exact-first.jsonl" &
    pool "$kind" "$folder/groups.pool" second "$folder/exact-first.jsonl" --n_groups "$groups" &
    pool "$kind" "$folder/few.pool" second "$folder/exact-first.jsonl" --n_groups "$groups" --texts_per_group 10 &
    wait_for_all
  done
}

warm() {
  for kind in $kinds; do
    compare "$kind" evaluate warm --data.init_args.max_prompts 2 &
    compare "$kind" evaluate warm-32 --data.init_args.batch_size 32 --data.init_args.max_prompts 32 &
    compare "$kind" evaluate warm-float32 --data.init_args.max_prompts 2 --trainer.precision 32-true &
    if [ "$kind" = items ]; then compare items sizes warm-sizes --data.init_args.max_prompts 2 & fi
  done
  wait_for_all
}

evaluate() {
  for kind in $kinds; do compare "$kind" evaluate evaluate --data.init_args.max_prompts "$prompts"; done
}

float32() {
  for kind in $kinds; do
    compare "$kind" evaluate float32 --data.init_args.max_prompts "$prompts" --trainer.precision 32-true
  done
}

evaluate_32() {
  for kind in $kinds; do compare "$kind" evaluate evaluate-32 --data.init_args.batch_size 32; done
}

sizes() { compare items sizes sizes --data.init_args.max_prompts "$prompts"; }

transformers() { compare items transformers transformers; }

second() {
  for kind in $kinds; do
    local folder=$results/$kind
    texts "$kind" "$folder/exact-second.jsonl" second
    pool "$kind" "$folder/groups-of-second.pool" first "$folder/exact-second.jsonl" --n_groups "$groups"
  done
}

old() {
  local folder=$results/users
  texts users "$folder/old.jsonl" null --data.init_args.prompts.init_args.leave_out 1
  pool users "$folder/old.pool" second "$folder/old.jsonl"
  pool users "$folder/old-own.pool" second "$folder/old.jsonl" --own_answers true
  compare users old old --data.init_args.max_prompts "$prompts"
}

relaxed() {
  for kind in $kinds; do
    local folder=$results/$kind
    for rule in relaxed bounded; do
      PADREC_KNOWLEDGE_POOL=$folder/groups.pool \
        texts "$kind" "$folder/$rule-second.jsonl" second --config $configs/knowledge_$rule.yaml &
      PADREC_KNOWLEDGE_POOL=$folder/groups-of-second.pool \
        texts "$kind" "$folder/$rule-first.jsonl" first --config $configs/knowledge_$rule.yaml &
    done
    wait_for_all
    for rule in exact relaxed bounded; do
      cat "$folder/$rule-first.jsonl" "$folder/$rule-second.jsonl" > "$folder/$rule.jsonl"
    done
  done
}

clicks() {
  local named=() output=$results/clicks
  for rule in exact relaxed bounded; do
    named+=(--texts "$rule=$results/items/$rule.jsonl")
    if [[ $kinds == *users* ]]; then named+=(--users "$rule=$results/users/$rule.jsonl") output=$results/clicks-users; fi
  done
  if [ -e "$output/report.json" ]; then return; fi
  # shellcheck disable=SC2086  # options are words
  python -m experiments.laser.click_model --data "$office" --language-model "$PADREC_LANGUAGE_MODEL" \
    --output "$output" --reference exact "${named[@]}" ${PADREC_KNOWLEDGE_CLICKS:-}
}

for stage in "$@"; do $stage; done
