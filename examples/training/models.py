"""The three architectures at toy size, and the word-level tokenizer they share."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from examples.training.grammar import Grammar

PAD, UNK, BOS = "<pad>", "<unk>", "<bos>"
D_MODEL, N_LAYERS, N_HEADS, CONTEXT = 64, 4, 4, 64


def make_tokenizer(grammar: Grammar) -> PreTrainedTokenizerFast:
    """One token a word; unknown words become `<unk>`; `<bos>` is prepended where the grammar says so."""
    vocabulary = {word: index for index, word in enumerate([PAD, UNK, BOS, *grammar.vocabulary()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if grammar.uses_bos:
        tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, bos_token=BOS, model_max_length=CONTEXT
    )


def gpt2(vocab_size: int) -> PreTrainedModel:
    """Learned positions, LayerNorm, GELU, tied unembedding."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=CONTEXT,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def gemma2(vocab_size: int) -> PreTrainedModel:
    """Four RMSNorms a layer, grouped queries, sliding and full attention in turn, both soft-caps, tied unembedding."""
    config = Gemma2Config(
        vocab_size=vocab_size,
        hidden_size=D_MODEL,
        intermediate_size=128,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=CONTEXT,
        sliding_window=32,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def llama(vocab_size: int) -> PreTrainedModel:
    """RMSNorm, rotary positions, grouped queries, SwiGLU, separate unembedding."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=D_MODEL,
        intermediate_size=160,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


ARCHITECTURES: dict[str, Callable[[int], PreTrainedModel]] = {
    "indirect_object": gpt2,
    "refusal": gemma2,
    "unlearning": llama,
}
