"""Make a small language model of the items' titles and descriptions: a stand-in for a pretrained one, for a CPU.

    python experiments/office/language_model.py DATA/office runs/office/language-model

trains a byte-pair tokenizer and a Qwen3 of 330,000 weights for 150 steps and saves both as transformers does,
so that the other configs can name the folder where they would name a model on the hub.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

_END = "<|endoftext|>"
_TOKENS = 2000
_WIDTH, _ROWS, _STEPS, _RATE = 128, 8, 150, 3e-3


def main() -> None:
    """Read the arguments, train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with a *.item.json file of titles and descriptions")
    parser.add_argument("output", type=Path, help="new folder for the model and its tokenizer")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is already there, expected a new folder")
    texts = read_texts(arguments.data)
    tokenizer = train_tokenizer(texts)
    model = train_model(texts, tokenizer)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)


def read_texts(folder: Path) -> list[str]:
    """One text for each item: title and description."""
    (path,) = folder.glob("*.item.json")
    items = json.loads(path.read_text(encoding="utf-8")).values()
    return [f"{item.get('title', '')}\n{item.get('description', '')}" for item in items]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs of the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_END, eos_token=_END)


def train_model(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small model that has read some of the texts."""
    torch.manual_seed(0)
    end = tokenizer.convert_tokens_to_ids(_END)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    rows = text_rows(texts, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    for step in range(_STEPS):
        batch = rows[torch.randint(len(rows), (_ROWS,))]  # [B, T]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == _STEPS - 1:
            print(f"step {step} of {_STEPS}: {loss.item():.2f} nats per token", flush=True)
    model.eval()
    return model


def text_rows(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """All texts one after another, cut into rows, int64 `[rows, T]`."""
    tokens = [token for ids in tokenizer([text + _END for text in texts])["input_ids"] for token in ids]
    return torch.tensor(tokens[: len(tokens) // _WIDTH * _WIDTH]).view(-1, _WIDTH)


if __name__ == "__main__":
    main()
