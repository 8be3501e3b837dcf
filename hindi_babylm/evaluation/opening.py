"""Open any causal or masked model of transformers, ours or not, for scoring: its context, and its first token."""

from typing import TYPE_CHECKING, Any

from hindi_babylm.evaluation.scorer import Scorer
from hindi_babylm.storage import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A longer context than this costs more time and memory than figures of Hindi documents need.
LONGEST_WINDOW = 2048
# Where a configuration says how many positions a model has.
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")


def open_scorer(name: str, *, revision: str | None = None, block_size: int | None = None) -> Scorer:
    """Open a model folder or hub id in fp32, on the GPU where there is one; code that comes with a model is never run.

    The context of a text's first token is the model's BOS; where its tokenizer has none, EOS, then CLS. A masked
    model's text stands between CLS and SEP, else BOS and EOS, else two EOS. `block_size` is by default that of
    `context_length`.

    Raises UserError for what cannot be opened, is no such model, lacks weights, has no token to begin with, or no
    context of `block_size`.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size).save_pretrained("tiny")
    >>> _ = tokenizer.save_pretrained("tiny")
    >>> scorer = open_scorer("tiny")
    >>> print(type(scorer.model).__name__, scorer.model.dtype, scorer.block_size, scorer.first)
    GPT2LMHeadModel torch.float32 16 1
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    from hindi_babylm.masking import auto_class, is_masked, mask_token_id

    given: Any = {"revision": revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(name, **given)
        (architecture,) = (config.architectures or [None])[:1]
        if str(architecture).endswith("ForPreTraining") and config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            architecture = MODEL_FOR_MASKED_LM_MAPPING_NAMES[config.model_type]
        opened = auto_class(architecture).from_pretrained(name, dtype=torch.float32, output_loading_info=True, **given)
        tokenizer: Any = AutoTokenizer.from_pretrained(name, **given)
    except Exception as error:  # transformers, the hub and each format raise types of their own: all are told
        raise UserError(
            f"evaluation: cannot open {name!r} as a causal or masked language model: {type(error).__name__}: "
            f"{first_line(error)[:300].rstrip('. ')}"
        ) from error
    model, loading = opened
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"evaluation: {name!r} ({architecture}) is no language model: it has no weights for {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary and max(tokenizer.get_vocab().values()) >= vocabulary:
        raise UserError(
            f"evaluation: the tokenizer of {name!r} has {len(tokenizer)} tokens, the model {vocabulary}: they do not "
            "belong together"
        )
    longest = context_length(model, tokenizer)
    if block_size is not None and block_size > longest:
        raise UserError(f"evaluation: block_size {block_size}: the context of {name!r} is {longest} tokens at most")
    masked = is_masked(type(model).__name__)
    if masked:
        mask_token_id(tokenizer)
    first, last = _edges(model, tokenizer, masked=masked)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    scorer = Scorer(model, tokenizer, block_size or min(longest, LONGEST_WINDOW), first, last, masked)
    if not masked and not _is_causal(scorer):
        raise UserError(
            f"evaluation: {name!r} ({architecture}) is not causal: what it predicts hangs on later tokens, so it gives "
            "no likelihood"
        )
    return scorer


def context_length(model: "PreTrainedModel", tokenizer: Any) -> int:
    """Return the tokens that a model can read at once; one without an end of its own reads `LONGEST_WINDOW`."""
    config = model.config.get_text_config()
    known = [value for name in _POSITIONS if isinstance(value := getattr(config, name, None), int) and value > 0]
    lengths = known[:1]
    for name, module in model.named_modules():
        # RoBERTa and its kin number positions from behind the padding's.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            lengths.append(module.num_embeddings - module.padding_idx - 1)
    if 0 < tokenizer.model_max_length < 10**9:
        lengths.append(tokenizer.model_max_length)
    return min(lengths, default=LONGEST_WINDOW)


def _edges(model: "PreTrainedModel", tokenizer: Any, *, masked: bool) -> tuple[int, int]:
    """Return the tokens before and behind a text."""
    bos, eos, cls, sep = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep"))
    if masked:
        edges = next((pair for pair in ((cls, sep), (bos, eos), (eos, eos)) if None not in pair), None)
    else:
        # Ours name EOS in their configuration, which a tokenizer made elsewhere may not know as BOS.
        own = model.config.get_text_config().bos_token_id
        known = [token for token in (bos, eos, cls) if token is not None]
        first = own if own in known else next(iter(known), None)
        edges = None if first is None else (first, first)
    if edges is None:
        raise UserError(
            f"evaluation: the tokenizer of {tokenizer.name_or_path!r} has no BOS, EOS or CLS token, which a text's "
            "first token needs before it"
        )
    return edges


def _is_causal(scorer: Scorer) -> bool:
    """Tell whether what a model predicts hangs on earlier tokens alone."""
    import torch

    ids = torch.full((2, min(4, scorer.block_size)), scorer.first, device=scorer.model.device)
    # Another token, and not that of padding, at which transformers warns.
    ids[1, -1] = min({0, 1, 2} - {scorer.first, scorer.model.config.get_text_config().pad_token_id})
    with torch.no_grad():
        one, other = scorer.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    # A diverged model gives no numbers here; the scores say so by its name.
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True))
