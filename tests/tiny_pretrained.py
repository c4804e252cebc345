"""Tiny random networks in Hugging Face's folder format: a Qwen2 that chats, a picture classifier, a text classifier."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

CHAT = ("{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif %}")
WORDS = ("a", "cat", "walks", "on", "the", "beach", "at", "dawn", "soft", "light")
END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"


def tokenizer(chat_template: str | None = CHAT) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[PADDING, "<|im_start|>", END_OF_TURN], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator([" ".join(("", *WORDS))] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_input_names=["input_ids", "attention_mask"], eos_token=END_OF_TURN,
                                   pad_token=PADDING, additional_special_tokens=["<|im_start|>"], chat_template=chat_template)


def write_language_model(folder: Path, chat_template: str | None = CHAT) -> None:
    words = tokenizer(chat_template)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    network = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id))
    spoken = {words.eos_token_id, *(token for text in WORDS for token in words(f" {text}")["input_ids"])}
    network.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20,  # as Qwen's, and words alone, then the end
                                     suppress_tokens=[token for token in range(len(words)) if token not in spoken], min_new_tokens=60)
    network.save_pretrained(folder)


def write_picture_classifier(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw"), strict: bool = False) -> None:
    """A random ViT whose last layer tells red pictures (0.88 for the second label) from grey ones (0.12); a strict one says 0.95 to all."""
    torch.manual_seed(0)
    network = ViTForImageClassification(ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)}))
    with torch.no_grad():
        red, grey = (network.eval().vit(torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 32)).last_hidden_state[0, 0]
                     for colour in ((1.0, -1.0, -1.0), (-0.2, -0.2, -0.2)))
        network.classifier.weight.zero_()
        network.classifier.weight[1] = 4 * (red - grey) / (red - grey).square().sum()
        network.classifier.bias.copy_(torch.tensor([0.0, -network.classifier.weight[1] @ (red + grey) / 2]))
        if strict:
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(torch.tensor([0.0, 3.0]))
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def write_text_classifier(folder: Path, labels: tuple[str, ...] = ("safe", "nsfw")) -> None:
    words = tokenizer(None)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)})).save_pretrained(folder)
